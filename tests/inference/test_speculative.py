"""Speculative decoding: by hand, as a loop, every path without sampling, gradients, and errors."""

import math
from collections import Counter
from fractions import Fraction
from itertools import product

import pytest
import torch

from llmref.inference.speculative import (
    acceptance_rate,
    best_draft_length,
    expected_tokens,
    residual_probs,
    speculative_step,
    speedup,
)
from tests.tensors import close, f64, generator, random

NONE = torch.zeros(0, dtype=torch.long)


def near(K, V, seed):
    p, q = (2 * random(n, V, seed=seed + n) for n in (K + 1, K))
    p, q = p.softmax(-1), (p[:K] + q).softmax(-1)
    x = [int(torch.multinomial(row, 1, generator=generator(seed))) for row in q]
    u = torch.rand(K + 1, generator=generator(seed), dtype=torch.float64)
    return p, q, torch.tensor(x, dtype=torch.long), u


def test_a_fair_coin_from_a_draft_of_nine_to_one():
    """At .27 < .5 heads are kept, at .72 not; shared are .5 + .1, and only tails are missing."""
    p, q, heads = f64((0.5, 0.5), (0.25, 0.75)), f64((0.9, 0.1)), torch.tensor([0])
    assert speculative_step(p, q, heads, f64(0.3, 0.1)).tolist() == [0, 0]
    assert speculative_step(p, q, heads, f64(0.3, 0.25)).tolist() == [0, 1]
    assert speculative_step(p, q, heads, f64(0.8, 0.1)).tolist() == [1]
    close(acceptance_rate(p[:1], q), f64(0.6))
    close(residual_probs(p[:1], q), f64((0.0, 1.0)))


def test_half_kept_with_two_drafts_gives_seven_quarters():
    """1 + 1/2 + 1/4; two drafts at a cost of 1/4 take 3/2 passes."""
    assert expected_tokens(0.5, 2) == pytest.approx(1.75, abs=1e-15)
    assert speedup(0.5, 2, draft_cost=0.25) == pytest.approx(1.75 / 1.5, abs=1e-15)
    assert best_draft_length(0.8, draft_cost=0.05, max_length=50) == 8
    assert speedup(0.8, 8, draft_cost=0.05) == pytest.approx(3.0920795, abs=1e-6)


def by_loop(p, q, x, u):
    out = []
    for i, token in enumerate(x.tolist()):
        if float(u[i]) * float(q[i, token]) < float(p[i, token]):
            out.append(token)
            continue
        rest = [max(float(a) - float(b), 0.0) for a, b in zip(p[i], q[i], strict=True)]
        break
    else:
        rest = p[len(x)].tolist()
    point, mass = float(u[-1]) * sum(rest), 0.0
    for token, weight in enumerate(rest):
        mass += weight
        if mass > point:
            return [*out, token]
    return None


def test_definition_as_a_loop():
    lengths = Counter()
    for seed in range(150):
        given = near(seed % 5, 2 + seed % 6, seed)
        found = speculative_step(*given).tolist()
        assert found == by_loop(*given)
        lengths[len(found)] += 1
    assert set(lengths) == {1, 2, 3, 4, 5}


def test_every_path_together_is_the_target():
    """Two tokens from one draft, p and q in quarters: thresholds are halves and quarters."""
    p, q = [[1, 1, 2], [2, 0, 2]], [[2, 1, 1]]
    rows = [f64(*(tuple(a / 4 for a in row) for row in of)) for of in (p, q)]
    out: Counter[int] = Counter()
    for x, first, last in product(range(3), (0.25, 0.75), (0.125, 0.375, 0.625, 0.875)):
        tokens = speculative_step(*rows, torch.tensor([x]), f64(first, last)).tolist()
        out[tokens[0]] += Fraction(q[0][x], 4 * 2 * 4)
    assert [out[i] for i in range(3)] == [Fraction(a, 4) for a in p[0]]


def test_kept_and_replaced_are_the_target_whatever_the_rows():
    p, q = (3 * random(200, 6, seed=s) for s in (1, 2))
    p, q = p.softmax(-1), q.masked_fill(random(200, 6, seed=3) > 1, -math.inf)
    q = q.masked_fill((q == -math.inf).all(-1, keepdim=True), 0.0).softmax(-1)
    alpha = acceptance_rate(p, q)
    close(torch.minimum(p, q) + (1 - alpha)[:, None] * residual_probs(p, q), p)
    close(alpha, 1 - (p - q).abs().sum(-1) / 2)
    close(alpha, acceptance_rate(q, p))


def test_equal_rows_are_always_kept_and_their_residual_is_the_target():
    p, _, _, u = near(4, 5, 0)
    most = torch.cat([torch.full((4,), 1 - 2.0**-53, dtype=torch.float64), u[-1:]])
    drawn = torch.multinomial(p[:4], 1, generator=generator())[:, 0]
    assert speculative_step(p, p[:4], drawn, most)[:4].tolist() == drawn.tolist()
    close(residual_probs(p, p), p)
    close(acceptance_rate(p, p), torch.ones(5).double())


def test_a_residual_that_rounds_to_nothing_is_the_target():
    p, q = f64((0.5, 0.5), (1.0, 0.0)), f64((0.5, 0.5 + 2.0**-53))
    u = f64(1 - 2.0**-53, 0.25)
    assert speculative_step(p, q, torch.tensor([1]), u).tolist() == [0]


def test_a_token_that_the_target_never_gives_is_refused_at_a_uniform_of_zero():
    p, q = f64((0.0, 1.0), (1.0, 0.0)), f64((0.5, 0.5))
    assert speculative_step(p, q, torch.tensor([0]), f64(0.0, 0.0)).tolist() == [1]


def test_without_drafts_it_is_plain_sampling():
    p = f64((0.25, 0.0, 0.75))
    drawn = [speculative_step(p, f64().view(0, 3), NONE, f64(u)).tolist() for u in (0.0, 0.25)]
    assert drawn == [[0], [2]]


def test_one_token_in_the_vocabulary():
    one = torch.ones(3, 1, dtype=torch.float64)
    assert speculative_step(one, one[:2], torch.zeros(2).long(), f64(0, 0, 0)).tolist() == [0, 0, 0]


def test_expected_tokens_is_the_sum_of_powers_and_keeps_its_digits():
    for alpha in (0.0, 1e-300, 1e-20, 0.3, 0.9, 1 - 1e-9, 1 - 2.0**-53, 1.0):
        for K in (0, 1, 2, 7, 40):
            exact = sum(Fraction(alpha) ** k for k in range(K + 1))
            assert expected_tokens(alpha, K) == pytest.approx(float(exact), rel=1e-14)
    assert expected_tokens(torch.tensor(0.5), 1) == 1.5


def test_the_best_length_is_that_of_a_search():
    for alpha, c in product((0.0, 0.2, 0.5, 0.9, 0.97, 1.0), (0.0, 0.02, 0.2, 0.5, 0.95, 1.0, 3.0)):
        for most in (0, 1, 5, 20):
            K = best_draft_length(alpha, draft_cost=c, max_length=most)
            a, cost = Fraction(alpha), Fraction(c)
            speeds = [sum(a**k for k in range(n + 1)) / (cost * n + 1) for n in range(most + 1)]
            assert speeds.index(max(speeds)) == K


def test_of_two_lengths_that_are_as_fast_one_is_best():
    """1.875 / (1 + 3/27) and 1.9375 / (1 + 4/27) are 27/16; 1.75 / (28/19) is 2.3125 / (37/19)."""
    for alpha, cost, best in ((0.5, 1 / 27, (3, 4)), (0.75, 9 / 19, (1, 2))):
        assert best_draft_length(alpha, draft_cost=cost, max_length=50) in best


def test_free_drafts_and_drafts_that_are_all_kept_have_no_end():
    assert best_draft_length(0.5, draft_cost=0.0, max_length=20) == 20
    assert best_draft_length(1.0, draft_cost=0.9, max_length=10**12) == 10**12
    assert best_draft_length(0.8, draft_cost=0.05, max_length=2**63 - 1) == 8
    assert best_draft_length(1.0, draft_cost=1.0, max_length=20) == 0
    assert best_draft_length(0.0, draft_cost=0.0, max_length=20) == 0
    assert best_draft_length(0.5, draft_cost=0.0, max_length=2000) == 2000
    assert best_draft_length(1.0, draft_cost=1 - 2.0**-53, max_length=10**6) == 10**6
    for thousandths in range(1, 1000):  # a draft that costs as much as it is kept does not pay
        rate = thousandths / 1000
        assert best_draft_length(rate, draft_cost=rate, max_length=50) == 0


def test_the_largest_uniform_stays_in_the_vocabulary():
    """Ten times 0.1 sums to less than 1."""
    row = torch.full((1, 10), 0.1, dtype=torch.float64)
    none, last = (
        torch.tensor([], dtype=torch.long),
        torch.tensor([1 - 2.0**-53], dtype=torch.float64),
    )
    assert speculative_step(row, row[:0], none, last).tolist() == [9]


def test_gradients_by_finite_differences():
    z = [random(2, 3, seed=s).requires_grad_() for s in (1, 2)]
    for function in (acceptance_rate, residual_probs):
        assert torch.autograd.gradcheck(
            lambda a, b, f=function: f(a.softmax(-1), b.softmax(-1)), z, fast_mode=True
        )


def test_the_backward_pass_of_a_residual_that_is_the_target_meets_no_nan():
    """Anomaly detection refuses a NaN that is replaced later, too."""
    p = f64((0.5, 0.5), (0.25, 0.75)).requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        (slope,) = torch.autograd.grad(residual_probs(p, p.detach())[:, 0].sum(), p)
    close(slope, f64((0.5, -0.5), (0.75, -0.25)))  # through the division by the sum of p


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_that_rounding_leaves_off_one_are_divided_by_their_sum(dtype):
    p, q = ((random(40, 50, seed=s)).to(dtype).softmax(-1) for s in (1, 2))
    wide = [x.double() / x.double().sum(-1, keepdim=True) for x in (p, q)]
    unit = torch.finfo(dtype).eps
    assert acceptance_rate(p, q).dtype == dtype
    close(acceptance_rate(p, q).double(), acceptance_rate(*wide), atol=4 * unit)
    close(acceptance_rate(p, wide[1]), acceptance_rate(*wide), atol=1e-6)
    close(acceptance_rate(p, p), torch.ones(40, dtype=dtype), atol=4 * unit)
    assert (acceptance_rate(p, p) <= 1).all()  # so that expected_tokens takes it
    assert residual_probs(p, wide[1].float()).dtype == torch.float32
    x, u = q[:39].argmax(-1), torch.rand(40, generator=generator(), dtype=torch.float64)
    found = speculative_step(p, q[:39], x, u)
    assert found.tolist() == speculative_step(wide[0], wide[1][:39], x, u).tolist()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_ids_of_any_integer_type(dtype):
    p, q, x, u = near(3, 6, 2)
    found = speculative_step(p, q, x.to(dtype), u)
    assert found.dtype == torch.long
    assert found.tolist() == speculative_step(p, q, x, u).tolist()


def test_rows_that_are_no_distribution_are_refused_by_name():
    p, q, x, u = near(2, 3, 0)
    with pytest.raises(ValueError, match="target_probs must sum to 1 along dim -1, got a sum of 2"):
        acceptance_rate(2 * p[:2], q)
    with pytest.raises(ValueError, match="draft_probs must hold probabilities >= 0"):
        residual_probs(p[:2], -q)
    with pytest.raises(ValueError, match="target_probs must"):
        speculative_step(p.log(), q, x, u)
    with pytest.raises(ValueError, match="draft_probs must"):
        speculative_step(p, q * math.nan, x, u)
    with pytest.raises(TypeError, match="draft_probs must be floating point"):
        acceptance_rate(p[:2], q.long())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"p": lambda p: p[:2]}, ValueError, r"\(K \+ 1, V\) = \(3, 3\) beside .* got \(2, 3\)"),
        ({"p": lambda p: p[:, :2]}, ValueError, r"target_probs must be \(K \+ 1, V\)"),
        ({"q": lambda q: q[:1]}, ValueError, r"draft_tokens must be \(K,\) = \(1,\)"),
        ({"x": lambda x: x[:, None]}, ValueError, r"draft_tokens must be \(K,\)"),
        ({"x": lambda x: x + 3}, ValueError, r"draft_tokens holds the id \d, outside \[0, 3\)"),
        ({"x": lambda x: x - 3}, ValueError, r"draft_tokens holds the id -\d"),
        ({"x": lambda x: x.double()}, TypeError, "draft_tokens must hold integers"),
        ({"u": lambda u: u[:2]}, ValueError, r"uniforms must be \(n,\) = \(3,\)"),
        ({"u": lambda u: u + 1}, ValueError, r"uniforms must be in \[0, 1\), got 1"),
        ({"u": lambda u: u * math.nan}, ValueError, r"uniforms must be in \[0, 1\), got nan"),
        ({"u": lambda u: u.long()}, TypeError, "uniforms must be floating point"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, error, message):
    given = dict(zip("pqxu", near(2, 3, 0), strict=True))
    given |= {name: edit(given[name]) for name, edit in change.items()}
    with pytest.raises(error, match=message):
        speculative_step(*given.values())


def test_a_token_that_the_draft_cannot_have_drawn_is_refused():
    p, q = f64((0.5, 0.5), (0.5, 0.5)), f64((1.0, 0.0))
    with pytest.raises(ValueError, match=r"draft_tokens\[0\] = 1 has the probability 0"):
        speculative_step(p, q, torch.tensor([1]), f64(0.5, 0.5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: expected_tokens(1.1, 2), ValueError, r"acceptance must be in \[0, 1\], got 1.1"),
        (lambda: expected_tokens(math.nan, 2), ValueError, "acceptance must be in"),
        (lambda: expected_tokens("1", 2), TypeError, "acceptance must be a number"),
        (lambda: expected_tokens(0.5, -1), ValueError, "draft_length must be at least 0"),
        (
            lambda: expected_tokens(0.5, 10**400),
            ValueError,
            r"draft_length must be below 2\^63, .*of 1329 bits",
        ),
        (lambda: speedup(0.5, 2**63, draft_cost=0), ValueError, "draft_length must be below"),
        (
            lambda: best_draft_length(0.8, draft_cost=0.05, max_length=2**63),
            ValueError,
            "max_length must be below",
        ),
        (lambda: expected_tokens(0.5, 2.0), TypeError, "draft_length must be an int"),
        (lambda: speedup(0.5, 2, draft_cost=-0.1), ValueError, r"draft_cost must be in \[0, inf\)"),
        (lambda: speedup(0.5, 2, draft_cost=math.inf), ValueError, "draft_cost must be in"),
        (lambda: speedup(0.5, 2, draft_cost=None), TypeError, "draft_cost must be a number"),
        (
            lambda: best_draft_length(0.5, draft_cost=0.1, max_length=-1),
            ValueError,
            "max_length must be at least 0",
        ),
        (
            lambda: best_draft_length(-0.5, draft_cost=0.1, max_length=0),
            ValueError,
            "acceptance must be in",
        ),
    ],
)
def test_rates_costs_and_lengths_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
