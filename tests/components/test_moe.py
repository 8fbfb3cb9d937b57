"""Mixture of experts: routers, dispatch, capacity, balance, by hand, by loops and by laws."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.components.moe import (
    SparseMoE,
    biased_top_k,
    capacity_mask,
    expert_capacity,
    expert_load,
    load_balancing_loss,
    moe_dense,
    moe_forward,
    moe_parameters,
    router_z_loss,
    softmax_top_k,
    top_k_softmax,
    update_expert_bias,
)
from tests.tensors import close, f64, gradient, random

law = settings(deadline=None, max_examples=50)
ids = torch.tensor
maps = [torch.tanh, torch.sin, lambda x: x.square() + 1, torch.exp, lambda x: -x]


def test_weights_of_one_half_and_three_eighths():
    """The exponentials are 4, 3, 1 of 8; of the best two 4/7 and 3/7."""
    logits = f64(4, 1, 3).log()
    weights, experts = softmax_top_k(logits, 2, renormalize=False)
    close(weights, f64(1 / 2, 3 / 8))
    assert experts.tolist() == [0, 2]
    close(softmax_top_k(logits, 2, renormalize=True)[0], f64(4 / 7, 3 / 7))
    close(top_k_softmax(logits, 2)[0], f64(4 / 7, 3 / 7))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_renormalised_weights_are_the_softmax_over_the_chosen_logits(k):
    weights, experts = softmax_top_k(random(2, 3, 5), k, renormalize=True)
    close(weights, random(2, 3, 5).gather(-1, experts).softmax(-1))


@pytest.mark.parametrize("E", [5, 64])
def test_of_equal_logits_the_lower_index_wins(E):
    logits = torch.zeros(3, E)
    for router in (top_k_softmax, partial(softmax_top_k, renormalize=False)):
        weights, experts = router(logits, 2)
        assert experts.tolist() == [[0, 1]] * 3
        assert weights.dtype == torch.float32


def test_chosen_by_logits_where_exponentials_underflow():
    """exp(-195) is 0 in float32, so all but the first probability are equal."""
    weights, experts = softmax_top_k(torch.tensor([200.0, -9, 4, 5, -3]), 2, renormalize=True)
    assert experts.tolist() == [0, 3]
    assert weights.tolist() == [1.0, 0.0]


def test_a_logit_of_minus_infinity_is_the_last_choice():
    weights, experts = top_k_softmax(f64(-math.inf, 0, -math.inf), 2)
    assert experts.tolist() == [1, 0]
    assert weights.tolist() == [1.0, 0.0]


def test_a_bias_chooses_and_does_not_weigh():
    """0.9 - 0.6, 0.8 + 0 and 0.1 + 0.5: the last two, with 0.8 and 0.1, or 8/9 and 1/9."""
    scores, bias = f64(0.9, 0.8, 0.1), f64(-0.6, 0, 0.5)
    weights, experts = biased_top_k(scores, bias, 2, renormalize=False)
    assert experts.tolist() == [1, 2]
    close(weights, f64(0.8, 0.1))
    close(biased_top_k(scores, bias, 2, renormalize=True)[0], f64(8 / 9, 1 / 9))


def test_a_bias_has_no_gradient_and_its_mean_does_not_matter():
    scores, bias = random(7, 5).sigmoid(), random(5, seed=1).requires_grad_()
    weights, experts = biased_top_k(scores, bias, 2, renormalize=True)
    assert not weights.requires_grad
    assert torch.equal(experts, biased_top_k(scores, bias + 3, 2, renormalize=True)[1])


def test_two_tokens_by_hand():
    """2/3 of 3 and 1/3 of 30 make 12; 2/3 of 60 and 1/3 of 6 make 42."""
    x, p = f64((3,), (6,)), f64((0.6, 0.3, 0.1), (0.3, 0.6, 0.1))
    functions = [lambda rows, c=c: c * rows for c in (1, 10, 100)]
    for form in (moe_forward, moe_dense):
        close(form(x, *top_k_softmax(p.log(), 2), functions), f64((12,), (42,)))


def slow(x, weights, experts, functions):
    y = torch.zeros_like(x)
    for t in range(len(x)):
        for w, e in zip(weights[t], experts[t], strict=True):
            y[t] += w * functions[e](x[t : t + 1])[0]
    return y


@pytest.mark.parametrize(("N", "k"), [(7, 1), (7, 2), (1, 3), (4, 5), (0, 2), (3, 0)])
@pytest.mark.parametrize("form", [moe_forward, moe_dense])
def test_sorted_and_dense_are_the_slow_loop(form, N, k):
    x, weights = random(N, 3), random(N, k, seed=1)
    experts = random(N, 5, seed=2).argsort(-1)[:, :k]
    close(form(x, weights, experts, maps), slow(x, weights, experts, maps))


@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 10**6))
@law
def test_any_routing_is_dispatched(N, k, seed):
    """Also all tokens to one expert, and one expert chosen twice."""
    generator = torch.Generator().manual_seed(seed)
    experts = torch.randint(1 + seed % 5, (N, k), generator=generator)
    x, weights = random(N, 2, seed=seed), random(N, k, seed=seed + 1)
    close(moe_forward(x, weights, experts, maps), slow(x, weights, experts, maps))


def test_leading_axes_are_tokens():
    x, logits = random(2, 3, 4), random(2, 3, 5, seed=1)
    out = moe_forward(x, *top_k_softmax(logits, 2), maps)
    rows = moe_forward(x.view(6, 4), *top_k_softmax(logits.view(6, 5), 2), maps)
    close(out, rows.view(2, 3, 4))


def test_small_integers_are_experts_too():
    x, (weights, experts) = random(9, 2), top_k_softmax(random(9, 5, seed=1), 2)
    wanted = moe_forward(x, weights, experts, maps)
    assert torch.equal(moe_forward(x, weights, experts.to(torch.uint8), maps), wanted)
    many = torch.zeros(300, 1, dtype=torch.uint8)
    assert expert_load(many, 2).tolist() == [300, 0]
    assert capacity_mask(many, 2, 299, priority="token").sum() == 299


def test_sums_are_wide_and_rounded_once():
    """1 + 2^-9 is 1 in bfloat16; with the weights 1/2 each term alone would be rounded."""
    x = torch.tensor([[1.0, 2.0**-9]]).bfloat16()
    swapped = [lambda rows: rows, lambda rows: rows.flip(-1)]
    out = moe_forward(x, torch.ones(1, 2), ids([[0, 1]]), swapped)
    assert out.dtype == torch.bfloat16
    third = torch.full((1, 3), 1 / 3)
    same = moe_forward(x, third, ids([[0, 0, 0]]), swapped)
    assert torch.equal(same, x)


def test_an_expert_that_a_token_does_not_meet_may_overflow():
    """exp(1000) of the second expert; the token meets the first alone, with weight 1."""
    x, weights, experts = f64([1000.0]), f64([1.0]), torch.tensor([[0]])
    assert moe_dense(x, weights, experts, [torch.neg, torch.exp]).item() == -1000


def test_an_expert_without_tokens_has_a_gradient_of_zero():
    layer = SparseMoE(3, 4, 5, 1, router=lambda z, k: (torch.ones(2, 1), ids([[1], [1]])))
    layer(torch.ones(2, 3)).sum().backward()
    for e, expert in enumerate(layer.experts):
        assert all((p.grad != 0).any() == (e == 1) for p in expert.parameters())


@pytest.mark.parametrize("renormalize", [True, False])
def test_gradcheck_of_router_and_dispatch(renormalize):
    x, logits = random(4, 2).requires_grad_(), random(4, 5, seed=1).requires_grad_()

    def run(x, logits):
        return moe_forward(x, *softmax_top_k(logits, 2, renormalize=renormalize), maps)

    assert torch.autograd.gradcheck(run, (x, logits))


def test_an_expert_sees_its_tokens_in_their_order():
    seen: list[list[float]] = [[], []]

    def note(e):
        return lambda rows: seen[e].extend(rows.flatten().tolist()) or rows

    experts = torch.arange(3000)[:, None] % 7 % 2
    moe_forward(torch.arange(3000.0)[:, None], torch.ones(3000, 1), experts, [note(0), note(1)])
    assert seen == [[t for t in range(3000) if t % 7 % 2 == e] for e in (0, 1)]


def test_load_counts_what_the_mask_counts():
    experts = ids([[0, 1], [3, 1], [1, 0]])
    assert expert_load(experts, 5).tolist() == [2, 3, 0, 1, 0]
    assert expert_load(experts, 5, ids([True, False, True])).tolist() == [2, 2, 0, 0, 0]
    assert expert_load(experts, 5, ids([1.0, 0, 1])).tolist() == [2, 2, 0, 0, 0]
    assert expert_load(experts[:0], 2).tolist() == [0, 0]
    assert expert_load(0 * experts, 1).tolist() == [6]


@pytest.mark.parametrize(
    ("N", "E", "k", "factor", "capacity"),
    [
        (8, 4, 1, 1, 2),
        (9, 4, 1, 1, 3),
        (200, 4, 1, 1.1, 55),
        (10, 3, 2, Fraction(3, 2), 10),
        (10, 3, 2, 1.5, 10),
        (0, 3, 2, 2, 0),
        (7, 2, 1, 1e-5, 1),
    ],
)
def test_capacity_is_the_exact_ceiling(N, E, k, factor, capacity):
    assert expert_capacity(N, E, k, factor=factor) == capacity


def test_who_is_dropped():
    """Two tokens, (0, 1) and (1, 0), one place each: by token the second one loses both."""
    experts = ids([[0, 1], [1, 0]])
    by_token = capacity_mask(experts, 2, 1, priority="token")
    assert by_token.tolist() == [[True, True], [False, False]]
    by_choice = capacity_mask(experts, 2, 1, priority="choice")
    assert by_choice.tolist() == [[True, False], [True, False]]
    alone = capacity_mask(0 * experts, 1, 3, priority="choice")
    assert alone.tolist() == [[True, True], [True, False]]


def slow_mask(experts, capacity, priority, mask):
    N, k = experts.shape
    order = [(t, i) for t in range(N) for i in range(k)]
    if priority == "choice":
        order.sort(key=lambda place: place[1])
    taken, kept = {}, torch.zeros(N, k, dtype=torch.bool)
    for t, i in order:
        e = int(experts[t, i])
        if mask[t] and taken.get(e, 0) < capacity:
            taken[e] = taken.get(e, 0) + 1
            kept[t, i] = True
    return kept


@given(st.integers(0, 8), st.integers(1, 3), st.integers(0, 5), st.integers(0, 10**6))
@law
def test_places_are_taken_in_order(N, k, capacity, seed):
    generator = torch.Generator().manual_seed(seed)
    experts = torch.rand(N, 4, generator=generator).argsort(-1)[:, :k]
    mask = torch.rand(N, generator=generator) < 0.7
    for priority in ("token", "choice"):
        kept = capacity_mask(experts, 4, capacity, priority=priority, mask=mask)
        assert torch.equal(kept, slow_mask(experts, capacity, priority, mask))
        load = expert_load(experts, 4, mask)
        dropped = int((load - capacity).clamp(min=0).sum())
        assert int(kept.sum()) == int(load.sum()) - dropped


def test_a_loss_of_27_twentieths():
    """Loads 2, 2, 0 and mean probabilities 0.45, 0.45, 0.1: 3 / 4 times 1.8 is 1.35."""
    p = f64((0.6, 0.3, 0.1), (0.3, 0.6, 0.1))
    close(load_balancing_loss(p, ids([[0, 1], [1, 0]])), f64(1.35)[0])
    padded = torch.cat([p, f64((math.nan, 1, 0))])
    experts, mask = ids([[0, 1], [1, 0], [2, 1]]), ids([True, True, False])
    close(load_balancing_loss(padded, experts, mask), f64(1.35)[0])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_loss_is_1_at_equal_loads_and_so_is_its_loop(k):
    probs = (3 * random(6, 6)).softmax(-1)
    experts = (torch.arange(6)[:, None] + torch.arange(k)) % 6
    close(load_balancing_loss(probs, experts), f64(1.0)[0])
    experts = random(6, 6, seed=2).argsort(-1)[:, :k]
    shares = [(experts == e).sum().item() / 6 for e in range(6)]
    value = 6 / k * sum(f * p for f, p in zip(shares, probs.mean(0).tolist(), strict=True))
    close(load_balancing_loss(probs, experts), f64(value)[0])


def test_the_gradient_of_the_loss():
    logits, experts = random(4, 5), random(4, 5, seed=1).argsort(-1)[:, :2]
    p, n = logits.softmax(-1), expert_load(experts, 5).double()
    expected = 5 / (2 * 16) * p * (n - (p @ n)[:, None])
    close(gradient(lambda z: load_balancing_loss(z.softmax(-1), experts), logits), expected)


def test_rounded_probabilities_are_distributions():
    probs = random(50, 300).softmax(-1)
    experts = probs.topk(2).indices
    wide = load_balancing_loss(probs, experts)
    for dtype in (torch.bfloat16, torch.float16):
        loss = load_balancing_loss(probs.to(dtype), experts)
        assert loss.dtype == torch.float32
        assert abs(loss - wide) < 0.01


def test_z_loss_of_two_logits():
    """lse(0, 0) = log 2, lse(log 3, 0) = log 4 and lse(log p) = 0."""
    logits = f64((0, 0), (math.log(3), 0), (math.log(0.5), math.log(0.5)))
    wanted = (math.log(2) ** 2 + math.log(4) ** 2) / 3
    close(router_z_loss(logits), f64(wanted)[0])
    close(router_z_loss(logits, ids([False, True, False])), f64(math.log(4) ** 2)[0])
    lse = logits.logsumexp(-1, keepdim=True)
    close(gradient(router_z_loss, logits), 2 * lse * logits.softmax(-1) / 3)


def test_a_bias_moves_towards_the_mean():
    """Loads 5, 1, 3 have the mean 3; loads 1, 1, 2 have 4/3."""
    bias = f64(0.5, 0, -1)
    close(update_expert_bias(bias, ids([5, 1, 3]), rate=0.25), f64(0.25, 0.25, -1))
    close(update_expert_bias(bias, ids([1, 1, 2]), rate=0.25), f64(0.75, 0.25, -1.25))
    load = ids([200, 250, 150]).to(torch.uint8)  # their sum is beyond 8 bits
    close(update_expert_bias(bias, load, rate=0.25), f64(0.5, -0.25, -0.75))


def test_a_bias_balances():
    scores = (random(60, 6) + torch.linspace(0, 2, 6)).sigmoid()
    bias = torch.zeros(6, dtype=torch.float64)
    for step in range(100):
        load = expert_load(biased_top_k(scores, bias, 2, renormalize=True)[1], 6)
        bias = update_expert_bias(bias, load, rate=0.1 / (1 + step / 10))
    assert load.max() <= 23
    assert expert_load(top_k_softmax(scores, 2)[1], 6).max() >= 35


@pytest.mark.parametrize("shared", [0, 2])
def test_parameters_are_those_of_the_layer(shared):
    layer = SparseMoE(6, 10, 5, 2, router=top_k_softmax, num_shared=shared)
    total, active = moe_parameters(6, 10, 5, 2, shared)
    assert total == sum(p.numel() for p in layer.parameters())
    assert total - active == 3 * 3 * 6 * 10
    assert moe_parameters(6, 10, 5, 2) == moe_parameters(6, 10, 5, 2, 0)
    assert not SparseMoE(6, 10, 5, 2, router=top_k_softmax).shared


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_layer_keeps_the_dtype_and_routes_in_float32_at_least(dtype):
    layer = SparseMoE(4, 6, 5, 2, router=top_k_softmax, num_shared=1).to(dtype)
    x = random(2, 3, 4).to(dtype)
    assert layer(x).dtype == dtype
    assert layer.logits(x).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = moe_forward(x, *top_k_softmax(layer.logits(x), 2), list(layer.experts))
    close(layer(x), expected + layer.shared[0](x))


def test_zeros_in_the_router_send_all_tokens_to_the_same_experts():
    layer = SparseMoE(4, 6, 5, 2, router=top_k_softmax)
    torch.nn.init.zeros_(layer.gate.weight)
    experts = layer.router(layer.logits(random(9, 4).float()), 2)[1]
    assert expert_load(experts, 5).tolist() == [9, 9, 0, 0, 0]


def short(x):
    return x[:1]


row, two = f64(3, 2, 1), ids([[0, 1], [2, 1]])
WRONG = [
    (lambda: top_k_softmax(row, 0), ValueError, "k must be at least 1, got 0"),
    (lambda: top_k_softmax(row, 4), ValueError, "k must be at most the 3 experts, got 4"),
    (lambda: top_k_softmax(row, 2.0), TypeError, r"k must be an int, got 2\.0"),
    (lambda: top_k_softmax(row / 0 * 0, 1), ValueError, "logits must not be NaN"),
    (lambda: top_k_softmax(row / 0, 1), ValueError, "needs a finite maximum, got inf"),
    (lambda: top_k_softmax(-row / 0, 1), ValueError, "needs a finite maximum, got -inf"),
    (lambda: top_k_softmax(row[0], 1), ValueError, r"logits must be \(\.\.\., E\), got \(\)"),
    (lambda: top_k_softmax(row[:0], 1), ValueError, "num_experts must be at least 1, got 0"),
    (lambda: top_k_softmax(two, 1), TypeError, "logits must be floating point"),
    (lambda: softmax_top_k(two, 1, renormalize=True), TypeError, "logits must be floating point"),
    (
        lambda: softmax_top_k(row / 0 * 0, 1, renormalize=False),
        ValueError,
        "logits must not be NaN",
    ),
    (
        lambda: biased_top_k(row, row[:2], 1, renormalize=True),
        ValueError,
        r"bias must be \(E\) = \(3,\) beside scores \(3,\), got \(2,\)",
    ),
    (
        lambda: biased_top_k(-row, row, 1, renormalize=True),
        ValueError,
        r"scores must be in \[0, inf\), got -3",
    ),
    (
        lambda: biased_top_k(row, row / 0, 1, renormalize=True),
        ValueError,
        "bias must be finite, got inf",
    ),
    (
        lambda: biased_top_k(row, two[0], 1, renormalize=True),
        TypeError,
        "bias must be floating point",
    ),
    (
        lambda: biased_top_k(0 * row, row, 2, renormalize=True),
        ValueError,
        "chosen scores must not all be 0",
    ),
    (lambda: biased_top_k(row, row, 4, renormalize=True), ValueError, "k must be at most the 3"),
    (
        lambda: moe_forward(row[None], row[None], ids([[0, 1, 5]]), maps),
        ValueError,
        r"experts holds the id 5, outside \[0, 5\)",
    ),
    (
        lambda: moe_dense(row[None], row[None], ids([[0, 1]]), maps),
        ValueError,
        r"experts must be \(\.\.\., k\) = \(1, 3\) beside x \(1, 3\), weights \(1, 3\)",
    ),
    (
        lambda: moe_forward(row[None], row[None], row[None], maps),
        TypeError,
        "experts must hold integers",
    ),
    (
        lambda: moe_forward(two, row[None], two, maps),
        TypeError,
        "x must be floating point",
    ),
    (
        lambda: moe_forward(f64((1, 2), (3, 4)), f64((1,), (1,)), ids([[0], [0]]), [short]),
        ValueError,
        r"result must be \(n, C\) = \(2, 2\) beside rows \(2, 2\), got \(1, 2\)",
    ),
    (
        lambda: moe_forward(row[None], row[None], ids([[0, 0, 0]]), []),
        ValueError,
        "num_functions must be at least 1, got 0",
    ),
    (lambda: expert_load(two[:0], 0), ValueError, "num_experts must be at least 1, got 0"),
    (
        lambda: capacity_mask(two[:0], 0, 1, priority="token"),
        ValueError,
        "num_experts must be at least 1, got 0",
    ),
    (lambda: expert_load(two, 2), ValueError, r"experts holds the id 2, outside \[0, 2\)"),
    (lambda: expert_load(two, 3, ids([True])), ValueError, r"mask must be \(\.\.\.\) = \(2,\)"),
    (lambda: expert_load(two, 3, ids([2, 0])), ValueError, "a mask holds zeros and ones only"),
    (lambda: expert_capacity(9, 3, 1, factor=0), ValueError, "factor must be positive"),
    (lambda: expert_capacity(9, 3, 1, factor=math.inf), ValueError, "factor must be positive"),
    (
        lambda: expert_capacity(9, 3, 1, factor="1"),
        TypeError,
        "factor must be an int, a float or a Fraction, got '1'",
    ),
    (lambda: expert_capacity(-1, 3, 1, factor=1), ValueError, "num_tokens must be at least 0"),
    (lambda: expert_capacity(9, 3, 4, factor=1), ValueError, "k must be at most the 3 experts"),
    (
        lambda: capacity_mask(two, 3, -1, priority="token"),
        ValueError,
        "capacity must be at least 0, got -1",
    ),
    (
        lambda: capacity_mask(two, 3, 1, priority="first"),
        ValueError,
        r"priority must be one of \['token', 'choice'\], got 'first'",
    ),
    (
        lambda: capacity_mask(two, 2, 1, priority="token"),
        ValueError,
        r"experts holds the id 2, outside \[0, 2\)",
    ),
    (
        lambda: capacity_mask(two[0], 3, 1, priority="token"),
        ValueError,
        r"experts must be \(N, k\), got \(2,\)",
    ),
    (
        lambda: load_balancing_loss(f64((2, 1, 0), (1, 1, 1)), two),
        ValueError,
        "probs must sum to 1 along dim -1, got a sum of 3",
    ),
    (
        lambda: load_balancing_loss(f64((2, -1, 0), (1, 0, 0)), two),
        ValueError,
        "probs must hold probabilities >= 0, got -1",
    ),
    (
        lambda: load_balancing_loss(f64((1, 0, 0)), two),
        ValueError,
        r"experts must be \(\.\.\., k\)",
    ),
    (
        lambda: load_balancing_loss(f64((1, 0), (0, 1)), two),
        ValueError,
        r"experts holds the id 2, outside \[0, 2\)",
    ),
    (
        lambda: load_balancing_loss(f64((1, 0, 0), (1, 0, 0)), two, ids([False, False])),
        ValueError,
        r"no token of probs \(2, 3\) counts: there is no mean",
    ),
    (
        lambda: load_balancing_loss(torch.full((4, 2), 0.5), torch.zeros(4, 3).long()),
        ValueError,
        "k must be at most the 2 experts, got 3",
    ),
    (lambda: load_balancing_loss(two, two), TypeError, "probs must be floating point"),
    (lambda: router_z_loss(torch.zeros(0, 3)), ValueError, r"no token of logits \(0, 3\) counts"),
    (
        lambda: router_z_loss(f64((-math.inf, -math.inf))),
        ValueError,
        "logits must be finite as the log-sum-exp of each token, got -inf",
    ),
    (lambda: router_z_loss(f64((math.nan, 1))), ValueError, "holds NaN"),
    (lambda: router_z_loss(f64((1e300, 1))), ValueError, "router_z_loss must be finite, got inf"),
    (lambda: router_z_loss(two), TypeError, "logits must be floating point"),
    (
        lambda: update_expert_bias(row.bfloat16(), ids([1, 2, 3]), rate=0.1),
        ValueError,
        "bias must be float32 at least: steps are small, got torch.bfloat16",
    ),
    (
        lambda: update_expert_bias(1e6 * row.float(), ids([1, 2, 3]), rate=0.001),
        ValueError,
        "a step of 0.001 is lost beside a bias of 3e",
    ),
    (lambda: update_expert_bias(row, row, rate=0.1), TypeError, "load must hold integers"),
    (lambda: update_expert_bias(row, ids([1]), rate=0.1), ValueError, r"load must be \(E\)"),
    (
        lambda: update_expert_bias(row, ids([1, -2, 3]), rate=0.1),
        ValueError,
        r"load must be in \[0, inf\), got -2",
    ),
    (
        lambda: update_expert_bias(row, ids([1, 2, 3]), rate=0.0),
        ValueError,
        "rate must be positive and finite, got 0",
    ),
    (lambda: moe_parameters(4, 6, 3, 4), ValueError, "k must be at most the 3 experts, got 4"),
    (lambda: moe_parameters(4, 6, 3, 2, -1), ValueError, "num_shared must be at least 0, got -1"),
    (lambda: moe_parameters(0, 6, 3, 2), ValueError, "dim must be at least 1, got 0"),
    (
        lambda: SparseMoE(4, 6, 3, 4, router=top_k_softmax),
        ValueError,
        "k must be at most the 3 experts, got 4",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_gradcheck_of_biased_weights_that_are_renormalised():
    scores = random(3, 5).sigmoid().requires_grad_()
    routed = partial(biased_top_k, bias=random(5, seed=1), k=2, renormalize=True)
    assert torch.autograd.gradcheck(lambda s: routed(s)[0], scores)


@pytest.mark.parametrize("form", [moe_forward, moe_dense])
def test_an_expert_that_works_in_place_harms_no_other(form):
    x = torch.ones(2, 1)
    weights, experts = torch.ones(2, 1), ids([[0], [1]])
    found = form(x, weights, experts, [lambda rows: rows.mul_(3), lambda rows: rows.mul_(2)])
    assert found.tolist() == [[3.0], [2.0]]
    assert x.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("form", [moe_forward, moe_dense])
def test_weights_of_one_expert_that_is_chosen_twice_are_added_up_in_float32(form):
    x = torch.ones(1, 1)
    weights = torch.tensor([[1.0, 2**-11]], dtype=torch.float16)
    assert form(x, weights, ids([[1, 1]]), [torch.neg, torch.abs]).item() == 1 + 2**-11


@pytest.mark.parametrize("factor", [torch.tensor(1.1), math.nan, "1", True, 1j])
def test_a_factor_that_is_no_exact_number_is_refused(factor):
    with pytest.raises((TypeError, ValueError), match="factor must be"):
        expert_capacity(200, 4, 1, factor=factor)


def test_exact_factors_may_be_of_any_size():
    assert expert_capacity(4, 4, 1, factor=Fraction(1, 10**400)) == 1
    assert expert_capacity(1, 1, 1, factor=10**400) == 10**400


def test_what_overflows_is_refused():
    with pytest.raises(ValueError, match="bias must be finite after the step"):
        update_expert_bias(torch.zeros(3), ids([9, 0, 3]), rate=1e300)
    with pytest.raises(ValueError, match="scores must be finite once summed"):
        biased_top_k(torch.full((1, 3), 3e38), torch.zeros(3), 2, renormalize=True)
