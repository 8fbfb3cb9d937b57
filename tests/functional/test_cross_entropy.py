"""Cross-entropy, its chunked form, KL, perplexity and the average over micro-batches."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from llmref.functional.cross_entropy import (
    bits_per_byte,
    combine_microbatches,
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_hessian,
    kl_divergence,
    linear_cross_entropy,
    perplexity,
)
from llmref.functional.softmax import entropy, log_softmax, logsumexp, softmax
from tests.tensors import close, f64

INF = math.inf
F64 = torch.float64


def scalar(value):
    return torch.tensor(value, dtype=F64)


def random(*shape, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, dtype=F64, generator=generator)


def classes(*shape, V, seed=0):
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


logit_rows = st.lists(st.floats(-300, 300), min_size=2, max_size=6).map(lambda x: f64(*x))
law = settings(deadline=None, max_examples=60)


def test_cost_of_probability_three_quarters_and_a_quarter():
    """exp(0), exp(log 3) = 1, 3: the classes have probabilities 1/4 and 3/4."""
    logits = f64(0, math.log(3)).expand(2, 2)
    losses = cross_entropy(logits, torch.tensor([1, 0]), reduction="none")
    close(losses, f64(math.log(4 / 3), math.log(4)))
    close(cross_entropy(logits, torch.tensor([1, 0])), losses.mean())
    close(cross_entropy(logits, torch.tensor([1, 0]), reduction="sum"), losses.sum())


def test_gradient_is_the_probability_minus_the_target():
    """With p = (1/4, 3/4): target 1 gives (1/4, -1/4); target (1/2, 1/2) gives (-1/4, 1/4)."""
    logits = f64(0, math.log(3))
    close(cross_entropy_grad(logits, torch.tensor(1)), f64(1 / 4, -1 / 4))
    close(cross_entropy_grad(logits, f64(0.5, 0.5)), f64(-1 / 4, 1 / 4))
    close(cross_entropy_hessian(logits), torch.tensor([[3, -3], [-3, 3]], dtype=F64) / 16)


def test_smoothed_cost_by_hand():
    """V = 2, smoothing 0.2: target (0.9, 0.1), p = (3/4, 1/4): 0.9 log(4/3) + 0.1 log 4."""
    logits = f64(math.log(3), 0)
    expected = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    close(cross_entropy(logits, torch.tensor(0), label_smoothing=0.2), scalar(expected))


def test_z_loss_by_hand():
    """lse(0, log 3) = log 4; 0.1 (log 4)^2 is added at each position."""
    logits = f64(0, math.log(3)).expand(3, 2)
    target = torch.tensor([1, -100, 0])
    penalty = 0.1 * math.log(4) ** 2
    plain = f64(math.log(4 / 3), 0, math.log(4))
    close(
        cross_entropy(logits, target, z_loss=0.1, reduction="none"),
        plain + f64(penalty, 0, penalty),
    )
    close(cross_entropy(logits, target, z_loss=0.1), plain.sum() / 2 + penalty)
    close(cross_entropy(logits, target, z_loss=0.1, reduction="sum"), plain.sum() + 2 * penalty)


def test_z_loss_is_averaged_over_positions_whatever_the_class_weights():
    logits, target, weight = random(5, 7), classes(5, V=7), random(7).abs()
    penalty = logsumexp(logits).square().mean()
    with_penalty = cross_entropy(logits, target, weight=weight, z_loss=0.01)
    close(with_penalty, cross_entropy(logits, target, weight=weight) + 0.01 * penalty)


def test_perplexity_bits_and_kl_by_hand():
    """Probabilities 1/2, 1/8: perplexity 4; 16 bits in 2 bytes; KL of a coin from (1/4, 3/4)."""
    nll = scalar(math.log(2) + math.log(8))
    close(perplexity(nll, 2), scalar(4.0))
    close(perplexity(torch.stack([nll, nll]), torch.tensor([2, 4])), f64(4, 2))
    close(bits_per_byte(16 * scalar(math.log(2)), 2), scalar(8.0))
    close(
        kl_divergence(f64(0.5, 0.5), f64(0.25, 0.75)),
        scalar(math.log(2) - math.log(3) / 2),
    )


def test_microbatches_are_summed_before_they_are_divided():
    """Sums 6 and 5 over 3 and 1 targets: 11/4, not (2 + 5) / 2."""
    close(combine_microbatches(f64(6, 5), torch.tensor([3, 1])), scalar(11 / 4))


def slow_cross_entropy(logits, target, *, ignore, smoothing, weight, z_loss, reduction):
    """The definition, one position and one class at a time."""
    V = logits.shape[-1]
    losses, penalties, weights = [], [], []
    for row, entry in zip(logits.reshape(-1, V).tolist(), target_rows(target, V), strict=True):
        if entry == ignore:
            losses.append(0.0)
            penalties.append(0.0)
            continue
        lse = math.log(sum(math.exp(z) for z in row))
        hard = [float(j == entry) for j in range(V)] if isinstance(entry, int) else entry
        loss = 0.0
        for j in range(V):
            share = (1 - smoothing) * hard[j] + smoothing / V
            if isinstance(entry, int) and weight is not None:
                # The class weight of the target, and of each class in the uniform part.
                share = (1 - smoothing) * hard[j] * weight[entry] + smoothing / V * weight[j]
            elif weight is not None:
                share *= weight[j]
            loss += share * (lse - row[j])
        losses.append(loss)
        penalties.append(z_loss * lse**2)
        weights.append(weight[entry] if weight is not None and isinstance(entry, int) else 1.0)
    if reduction == "none":
        return [a + b for a, b in zip(losses, penalties, strict=True)]
    if reduction == "sum":
        return sum(losses) + sum(penalties)
    return sum(losses) / sum(weights) + sum(penalties) / len(weights)


def target_rows(target, V):
    return (
        target.reshape(-1, V).tolist() if target.is_floating_point() else target.flatten().tolist()
    )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("z_loss", [0.0, 0.03])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_option_equals_the_definition_written_as_a_loop(
    soft, smoothing, weighted, z_loss, reduction
):
    logits = random(2, 3, 5)
    target = softmax(random(2, 3, 5, seed=1)) if soft else classes(2, 3, V=5)
    if not soft:
        target[1, 1] = -100
    weight = random(5, seed=2).abs() if weighted else None
    actual = cross_entropy(
        logits,
        target,
        label_smoothing=smoothing,
        weight=weight,
        z_loss=z_loss,
        reduction=reduction,
    )
    expected = slow_cross_entropy(
        logits,
        target,
        ignore=-100,
        smoothing=smoothing,
        weight=None if weight is None else weight.tolist(),
        z_loss=z_loss,
        reduction=reduction,
    )
    close(actual.flatten(), f64(*expected) if reduction == "none" else f64(expected))
    assert actual.shape == ((2, 3) if reduction == "none" else ())


def test_one_hot_probabilities_equal_the_class():
    logits, target = random(2, 3, 5), classes(2, 3, V=5)
    one_hot = torch.nn.functional.one_hot(target, 5).double()
    for smoothing in (0.0, 0.2):
        close(
            cross_entropy(logits, one_hot, label_smoothing=smoothing),
            cross_entropy(logits, target, label_smoothing=smoothing),
        )


def test_the_dtype_of_the_target_decides_and_never_its_shape():
    """With one position a class: shapes (V, V) and (V,), integer or not."""
    V = 3
    logits = random(V, V)
    close(
        cross_entropy(logits, torch.eye(V, dtype=F64)),
        cross_entropy(logits, torch.arange(V)),
    )
    cube = random(V, V, V)
    hard = classes(V, V, V=V)
    assert cross_entropy(cube, hard, reduction="none").shape == (V, V)
    with pytest.raises(
        ValueError, match=r"target must be \(\.\.\.\) = \(3,\) beside logits \(3, 3\), got \(3, 3\)"
    ):
        cross_entropy(logits, torch.eye(V).long())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_any_integer_dtype_names_classes(dtype):
    logits, target = random(4, 5), classes(4, V=5)
    close(cross_entropy(logits, target.to(dtype)), cross_entropy(logits, target))
    close(cross_entropy_grad(logits, target.to(dtype)), cross_entropy_grad(logits, target))


@pytest.mark.parametrize(
    ("dtype", "V"),
    [(torch.uint8, 200), (torch.uint8, 256), (torch.int8, 200), (torch.int16, 40000)],
)
def test_narrow_classes_are_compared_with_the_vocabulary_in_full(dtype, V):
    """In uint8, -100 would be 156, and 256 would be 0; in int8, 200 would be -56."""
    largest = min(V - 1, torch.iinfo(dtype).max)
    target = torch.tensor([156 if largest >= 156 else 5, 2, largest])
    logits = random(3, V)
    narrow = target.to(dtype)
    for reduction in ("none", "mean", "sum"):
        close(
            cross_entropy(logits, narrow, reduction=reduction),
            cross_entropy(logits, target, reduction=reduction),
        )
    close(cross_entropy_grad(logits, narrow), cross_entropy_grad(logits, target))
    hidden, head = random(3, 4), random(V, 4, seed=1)
    close(
        linear_cross_entropy(hidden, head, narrow, chunk_size=2),
        linear_cross_entropy(hidden, head, target, chunk_size=2),
    )


def test_an_ignored_class_of_8_bits():
    logits, target = random(3, 200), torch.tensor([156, 2, 255])
    kept = cross_entropy(logits[:2], target[:2])
    close(cross_entropy(logits, target.to(torch.uint8), ignore_index=255), kept)
    with pytest.raises(TypeError, match=r"ignore_index must be an int, got 255\.0"):
        cross_entropy(logits, target, ignore_index=255.0)


def test_the_gradient_of_a_confident_model_keeps_its_digits():
    """In float32, p - 1 rounds to 0 at a gap of 20; the other entries say what it is."""
    grad = cross_entropy_grad(torch.tensor([0.0, -20.0, -21.0]), torch.tensor(0))
    exact = cross_entropy_grad(f64(0, -20, -21), torch.tensor(0))
    assert (grad / exact - 1).abs().max() < 1e-6


def test_probabilities_may_be_wider_than_the_logits():
    logits, target = random(4, 5), softmax(random(4, 5, seed=1))
    for reduction in ("none", "mean", "sum"):
        loss = cross_entropy(logits.float(), target, reduction=reduction)
        assert loss.dtype == F64
        close(loss, cross_entropy(logits, target, reduction=reduction), atol=1e-5)


def test_nan_at_an_ignored_position_reaches_no_gradient_in_chunks():
    hidden, head = random(5, 3), random(4, 3, seed=1).requires_grad_()
    target = torch.tensor([1, -100, 0, 3, -100])
    expected = linear_cross_entropy(hidden, head, target, chunk_size=2)
    (clean,) = torch.autograd.grad(expected, head)
    hidden[1], hidden[4] = math.nan, INF
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, head, target, chunk_size=2)
    d_hidden, d_head = torch.autograd.grad(loss, (hidden, head))
    close(loss, expected)
    close(d_head, clean)
    assert (d_hidden[[1, 4]] == 0).all()
    with pytest.raises(TypeError, match=r"target must hold integers, got torch\.float64"):
        linear_cross_entropy(hidden, head, target.double(), chunk_size=2)


def test_kl_keeps_its_digits_between_close_distributions():
    """KL of (1/4 + d, 3/4 - d) from (1/4, 3/4) is 8/3 d^2 and higher powers of d."""
    d = 2.0**-12
    p, q = torch.tensor([0.25 + d, 0.75 - d]), torch.tensor([0.25, 0.75])
    exact = (p.double() * (p.double() / q.double()).log()).sum().item()
    assert exact == pytest.approx(8 / 3 * d**2, rel=1e-3)
    assert abs(kl_divergence(p, q).item() / exact - 1) < 1e-3
    naive = (p * (p.log() - q.log())).sum().item()
    assert abs(naive / exact - 1) > 1e-2
    tiny = torch.tensor([1e-45, 1.0])
    assert kl_divergence(torch.tensor([0.5, 0.5]), tiny).isfinite()
    assert kl_divergence(tiny, torch.tensor([0.5, 0.5])).item() == pytest.approx(math.log(2))


def test_a_kl_of_half_precision_is_a_float32():
    p, q = softmax(random(2, 5)).bfloat16(), softmax(random(2, 5, seed=1)).bfloat16()
    kl = kl_divergence(p, q)
    assert kl.dtype == torch.float32
    p, q = p.double(), q.double()
    close(kl.double(), (p * (p / q).log()).sum(-1), atol=1e-6)


def test_rates_of_half_precision_neither_overflow_nor_round():
    """The perplexity exp(12) is beyond float16, and so is the count 3 * 40000."""
    assert perplexity(torch.tensor(12.0).half(), 1).item() == pytest.approx(math.exp(12))
    bits = bits_per_byte(torch.tensor(1.0).bfloat16(), 3).item()
    assert bits == pytest.approx(1 / 3 / math.log(2))
    sums, counts = torch.full((3,), 40000.0).half(), torch.full((3,), 40000.0).half()
    assert combine_microbatches(sums, counts) == 1
    with pytest.raises(ValueError, match=r"n_tokens must be .* = \(2, 3\) beside nll_sum"):
        perplexity(torch.ones(2, 3), torch.ones(2))
    with pytest.raises(TypeError, match=r"nll_sum must be floating point, got torch\.complex64"):
        perplexity(torch.ones(2, dtype=torch.complex64), 1)


def test_a_single_position_needs_no_batch_axis():
    logits = random(5)
    for reduction in ("mean", "sum", "none"):
        loss = cross_entropy(logits, torch.tensor(2), reduction=reduction)
        assert loss.shape == ()
        close(loss, -log_softmax(logits)[2])
    assert cross_entropy(random(1), torch.tensor(0)) == 0  # one class is certain
    assert cross_entropy(random(2, 1), torch.ones(2, 1)) == 0


@given(logit_rows, st.floats(-200, 200), st.integers(0, 1))
@law
def test_loss_lies_between_zero_and_the_gap_plus_log_v(logits, shift, target):
    loss = cross_entropy(logits, torch.tensor(target)).item()
    gap = (logits.max() - logits[target]).item()
    assert max(0.0, gap) <= loss <= gap + math.log(len(logits)) + 1e-12
    close(cross_entropy(logits + shift, torch.tensor(target)), scalar(loss), atol=1e-11)


@given(logit_rows, st.floats(0, 0.9))
@law
def test_smoothing_adds_epsilon_times_the_lead_over_the_mean_logit(logits, smoothing):
    target = torch.tensor(0)
    smoothed = cross_entropy(logits, target, label_smoothing=smoothing)
    lead = logits[0] - logits.mean()
    close(smoothed, cross_entropy(logits, target) + smoothing * lead, atol=1e-10)


@given(logit_rows, logit_rows)
@law
def test_cross_entropy_is_entropy_plus_kl_and_least_at_the_target(a, b):
    size = min(len(a), len(b))
    q, logits = softmax(a[:size] / 10), b[:size] / 10
    loss, divergence = cross_entropy(logits, q), kl_divergence(q, softmax(logits))
    close(loss, entropy(q) + divergence, atol=1e-10)
    assert divergence >= -1e-12
    close(cross_entropy(q.log(), q), entropy(q), atol=1e-10)


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 9)), min_size=1, max_size=6))
@law
def test_error_of_the_mean_of_means_is_a_covariance(batches):
    means, counts = f64(*[b[0] for b in batches]), f64(*[float(b[1]) for b in batches])
    right = combine_microbatches(means * counts, counts)
    covariance = ((means - means.mean()) * (counts - counts.mean())).mean()
    close(right - means.mean(), covariance / counts.mean(), atol=1e-10)


OPTIONS = list(itertools.product([0.0, 0.1], [False, True], [0.0, 0.03], ["mean", "sum"]))


@pytest.mark.parametrize(("smoothing", "weighted", "z_loss", "reduction"), OPTIONS)
def test_autograd_agrees_with_finite_differences(smoothing, weighted, z_loss, reduction):
    logits = random(3, 5).requires_grad_()
    target = torch.tensor([4, -100, 0])
    weight = random(5, seed=2).abs() if weighted else None

    def loss(logits):
        return cross_entropy(
            logits,
            target,
            label_smoothing=smoothing,
            weight=weight,
            z_loss=z_loss,
            reduction=reduction,
        )

    assert torch.autograd.gradcheck(loss, logits)
    assert torch.autograd.gradgradcheck(loss, logits)


def test_gradient_and_hessian_equal_autograd():
    logits, target, soft = random(2, 3, 5), classes(2, 3, V=5), softmax(random(2, 3, 5, seed=1))
    for y in (target, soft):

        def total(logits, y=y):
            return cross_entropy(logits, y, reduction="sum")

        close(cross_entropy_grad(logits, y), torch.autograd.functional.jacobian(total, logits))
    hessian = cross_entropy_hessian(logits)
    for i, j in itertools.product(range(2), range(3)):
        for y in (target[i, j], soft[i, j]):
            close(
                hessian[i, j],
                torch.autograd.functional.hessian(lambda z, y=y: cross_entropy(z, y), logits[i, j]),
            )


def test_gradient_with_respect_to_soft_targets_passes_gradcheck():
    logits, scores = random(2, 4), random(2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: cross_entropy(logits, softmax(s)), scores)
    assert torch.autograd.gradcheck(lambda s: kl_divergence(softmax(s), softmax(logits)), scores)
    assert torch.autograd.gradcheck(lambda s: kl_divergence(softmax(logits), softmax(s)), scores)


def test_the_slope_in_a_target_is_the_cost_of_its_class_where_the_target_is_0_too():
    """Where the cost is infinite, it is 0."""
    logits, target = f64(1, 0, 2), f64(0.5, 0, 0.5).requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(logits, target), target)
    close(slope, -torch.log_softmax(logits, -1))
    loss = cross_entropy(f64(0, -INF, 0), target)
    close(torch.autograd.grad(loss, target)[0], f64(math.log(2), 0, math.log(2)))


def test_slopes_of_the_divergence_are_finite_near_and_far():
    """log(p / q) + 1 and -p / q: these q are a thousandth of p, 1.4 p and far more than p."""
    p = f64(0.5, 0.5, 1e-300, 0).requires_grad_()
    q = f64(0.0005, 0.7, 0.1, 0.1995).requires_grad_()
    in_p, in_q = torch.autograd.grad(kl_divergence(p, q), (p, q))
    ratio = (p / q).detach()[:3]
    close(in_p[:3], ratio.log() + 1)
    close(in_q[:3], -ratio)
    assert in_p[3] == in_q[3] == 0  # in p it is -inf, and is left out


def test_gradient_sums_to_zero_and_has_the_stated_norms():
    logits, target = random(50, 5), classes(50, V=5)
    grad = cross_entropy_grad(logits, target)
    missing = 1 - softmax(logits).gather(-1, target[:, None]).squeeze(-1)
    close(grad.sum(-1), torch.zeros(50, dtype=F64))
    close(grad.abs().sum(-1), 2 * missing)
    assert (grad.norm(dim=-1) <= math.sqrt(2) * missing + 1e-12).all()


def test_softmax_before_the_loss_is_another_function():
    """At logits (10, 0) the loss is 4.5e-5; of their softmax it is 0.31, and never below that."""
    logits, target = f64(10, 0), torch.tensor(0)
    close(cross_entropy(logits, target), scalar(4.5398899e-5), atol=1e-12)
    close(cross_entropy(softmax(logits), target), scalar(0.31329), atol=1e-4)


def test_huge_logits_cost_their_gap():
    """The log of a softmax would be -inf in float32 from a gap of 104 on."""
    logits = torch.tensor([[1e4, 0.0, -1e4], [3e38, 0.0, 0.0]])
    losses = cross_entropy(logits, torch.tensor([2, 1]), reduction="none")
    close(losses / torch.tensor([2e4, 3e38]), torch.ones(2), atol=1e-6)
    assert softmax(logits).log()[0, 2] == -INF


def test_a_class_with_probability_zero_costs_infinity_but_has_a_gradient():
    logits = f64(0, -INF, 0).requires_grad_()
    loss = cross_entropy(logits, torch.tensor(1))
    assert loss == INF
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()
    smoothed = cross_entropy(logits, torch.tensor(0), label_smoothing=0.1)
    assert smoothed == INF
    assert torch.autograd.grad(smoothed, logits)[0].isfinite().all()
    close(cross_entropy(logits.detach(), torch.tensor(0)), scalar(math.log(2)))


def test_a_target_probability_zero_may_sit_on_a_masked_logit():
    """In torch it is 0 * inf = NaN."""
    logits = f64(0, -INF, 0).requires_grad_()
    target = f64(0.5, 0, 0.5).requires_grad_()
    loss = cross_entropy(logits, target)
    close(loss, scalar(math.log(2)))
    for grad in torch.autograd.grad(loss, (logits, target)):
        assert grad.isfinite().all()
    weight = f64(1, 0, 1)
    for y in (torch.tensor(0), f64(0.8, 0.1, 0.1)):
        assert cross_entropy(logits, y, label_smoothing=0.1, weight=weight).isfinite()


def test_ignored_positions_change_neither_value_nor_gradient_nor_count():
    logits, target = random(2, 3, 5), classes(2, 3, V=5)
    target[0, 1] = target[1, 2] = -100
    kept = target != -100
    for content in (0.0, 1e30, INF, -INF, math.nan):
        leaf = logits.masked_fill(~kept[..., None], content).requires_grad_()
        for reduction in ("mean", "sum"):
            loss = cross_entropy(leaf, target, z_loss=0.1, label_smoothing=0.1, reduction=reduction)
            close(
                loss.detach(),
                cross_entropy(
                    logits[kept],
                    target[kept],
                    z_loss=0.1,
                    label_smoothing=0.1,
                    reduction=reduction,
                ),
            )
            (grad,) = torch.autograd.grad(loss, leaf)
            assert (grad[~kept] == 0).all()
            assert grad.isfinite().all()
        losses = cross_entropy(leaf.detach(), target, reduction="none")
        assert (losses[~kept] == 0).all()
        assert (losses[kept] > 0).all()


def test_the_ignored_index_may_be_a_class():
    logits, target = random(4, 5), torch.tensor([0, 3, 0, 1])
    close(
        cross_entropy(logits, target, ignore_index=0),
        cross_entropy(logits[[1, 3]], target[[1, 3]]),
    )


def test_a_mean_over_nothing_is_refused_and_a_sum_is_zero_with_gradient_zero():
    logits = random(2, 3, 5).requires_grad_()
    target = torch.full((2, 3), -100)
    with pytest.raises(ValueError, match="a mean needs a target: all 6 are -100"):
        cross_entropy(logits, target)
    total = cross_entropy(logits, target, reduction="sum", z_loss=0.1, label_smoothing=0.1)
    assert total == 0
    assert (torch.autograd.grad(total, logits)[0] == 0).all()
    assert (cross_entropy(logits, target, reduction="none") == 0).all()
    with pytest.raises(ValueError, match="all 0 are -100"):
        cross_entropy(random(0, 5), torch.zeros(0, dtype=torch.long))
    assert cross_entropy(random(0, 5), torch.zeros(0, dtype=torch.long), reduction="sum") == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_loss_of_half_precision_logits_is_float32(dtype):
    """A mean near 11 has steps of 1/16 in bfloat16; computed in float32 it keeps 6 digits."""
    logits = random(64, 40, scale=4).to(dtype)
    target = classes(64, V=40)
    for y in (target, softmax(random(64, 40, seed=1)).float()):
        loss = cross_entropy(logits, y, z_loss=1e-3, label_smoothing=0.1)
        assert loss.dtype == torch.float32
        exact = cross_entropy(
            logits.double(), y if y is target else y.double(), z_loss=1e-3, label_smoothing=0.1
        )
        close(loss.double(), exact, atol=2e-5)
    assert cross_entropy(logits, target, reduction="none").dtype == torch.float32
    leaf = logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(leaf, target), leaf)
    assert grad.dtype == dtype
    for tensor in (
        cross_entropy_grad(logits, target),
        cross_entropy_hessian(logits),
    ):
        assert tensor.dtype == dtype


# --- the chunked form ---


def head_inputs(dtype=F64, B=2, T=3, C=4, V=7):
    hidden = random(B, T, C, scale=1.0).to(dtype).requires_grad_()
    head = random(V, C, seed=1, scale=1.0).to(dtype).requires_grad_()
    target = classes(B, T, V=V)
    target[0, 1] = -100
    return hidden, head, target


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 6, 100])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.03}])
def test_chunks_give_the_value_and_gradients_of_the_plain_form(chunk_size, reduction, options):
    hidden, head, target = head_inputs()
    plain = cross_entropy(hidden @ head.T, target, reduction=reduction, **options)
    chunked = linear_cross_entropy(
        hidden, head, target, chunk_size=chunk_size, reduction=reduction, **options
    )
    close(chunked, plain)
    for actual, expected in zip(
        torch.autograd.grad(3 * chunked, (hidden, head)),
        torch.autograd.grad(3 * plain, (hidden, head)),
        strict=True,
    ):
        close(actual, expected)


def test_gradients_in_chunks_agree_with_finite_differences():
    hidden, head, target = head_inputs()

    def loss(hidden, head):
        return linear_cross_entropy(hidden, head, target, chunk_size=2, z_loss=0.1)

    assert torch.autograd.gradcheck(loss, (hidden, head))


def test_a_second_derivative_through_chunks_is_refused():
    hidden, head, target = head_inputs()
    loss = linear_cross_entropy(hidden, head, target, chunk_size=2)
    with pytest.raises(RuntimeError, match="linear_cross_entropy is differentiable once"):
        torch.autograd.grad(loss, hidden, create_graph=True)


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements that any operation returned."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return result


def test_no_tensor_of_the_size_of_the_logits_is_ever_made():
    B, T, C, V, chunk = 4, 16, 5, 50, 4
    hidden, head, target = head_inputs(torch.float32, B, T, C, V)
    with LargestTensor() as chunked:
        linear_cross_entropy(hidden, head, target, chunk_size=chunk).backward()
    with LargestTensor() as plain:
        cross_entropy(hidden @ head.T, target).backward()
    assert plain.size == B * T * V
    assert chunked.size <= max(chunk * V, B * T * C, V * C)


def test_the_gradient_of_a_half_precision_head_is_summed_in_float32():
    """512 chunks of one position: a sum kept in bfloat16 would stall."""
    hidden, head, target = head_inputs(torch.bfloat16, B=1, T=512, C=4, V=7)
    loss = linear_cross_entropy(hidden, head, target, chunk_size=1, reduction="sum")
    assert loss.dtype == torch.float32
    wide = [x.detach().double().requires_grad_() for x in (hidden, head)]
    plain = cross_entropy(wide[0] @ wide[1].T, target, reduction="sum")
    close(loss.double(), plain, atol=1e-2 * plain.item())
    gradients = torch.autograd.grad(loss, (hidden, head))
    assert all(g.dtype == torch.bfloat16 for g in gradients)
    exact = torch.autograd.grad(plain, wide)[1]
    stalled = torch.zeros_like(head)
    for h, y in zip(hidden[0].detach(), target[0], strict=True):
        if y != -100:
            stalled = stalled + torch.outer(cross_entropy_grad(head.detach() @ h, y), h)
    error, naive = ((g.double() - exact).norm() for g in (gradients[1], stalled))
    assert error < naive / 3


def test_chunks_with_nothing_counted_behave_like_the_plain_form():
    hidden, head, target = head_inputs()
    target[:] = -100
    total = linear_cross_entropy(hidden, head, target, chunk_size=2, reduction="sum")
    assert total == 0
    assert all((g == 0).all() for g in torch.autograd.grad(total, (hidden, head)))
    with pytest.raises(ValueError, match="a mean needs a target: all 6 are -100"):
        linear_cross_entropy(hidden, head, target, chunk_size=2)
    target[1, 2] = 3  # the first chunk has nothing to count
    close(
        linear_cross_entropy(hidden, head, target, chunk_size=2),
        cross_entropy(hidden @ head.T, target),
    )
    empty = torch.zeros(0, dtype=torch.long)
    assert linear_cross_entropy(hidden[0, :0], head, empty, chunk_size=2, reduction="sum") == 0


def test_chunks_refuse_what_does_not_fit():
    hidden, head, target = head_inputs()
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"chunk_size must be at least 1, got {size}"):
            linear_cross_entropy(hidden, head, target, chunk_size=size)
    with pytest.raises(ValueError, match=r"reduction must be one of \['mean', 'sum'\], got 'none'"):
        linear_cross_entropy(hidden, head, target, chunk_size=2, reduction="none")
    for arguments in [
        (hidden, head.T, target),
        (hidden, head[0], target),
        (hidden, head, target[0]),
    ]:
        with pytest.raises(ValueError, match=r"(head|hidden) must be .* beside target"):
            linear_cross_entropy(*arguments, chunk_size=2)
    with pytest.raises(TypeError, match="one dtype, got hidden torch.float64, head torch.float32"):
        linear_cross_entropy(hidden, head.float(), target, chunk_size=2)
    with pytest.raises(ValueError, match=r"target holds the id 7, outside \[0, 7\)"):
        linear_cross_entropy(hidden, head, target.clamp(min=7), chunk_size=2)
    with pytest.raises(ValueError, match="label_smoothing"):
        linear_cross_entropy(hidden, head, target, chunk_size=2, label_smoothing=1)


# --- errors ---


@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_a_class_outside_the_vocabulary_is_refused(bad):
    target = torch.tensor([0, bad, -100])
    with pytest.raises(
        ValueError,
        match=rf"target holds the id {bad}, outside \[0, 5\), and it is not ignore_index -100",
    ):
        cross_entropy(random(3, 5), target)
    with pytest.raises(ValueError, match=rf"target holds the id {bad}, outside \[0, 5\)$"):
        cross_entropy_grad(random(2, 5), target[:2])
    with pytest.raises(ValueError, match="target holds the id -100, outside"):
        cross_entropy(random(3, 5), torch.tensor([0, 1, -100]), ignore_index=-1)


def test_the_shape_that_torch_wants_is_refused_with_the_rule():
    """F.cross_entropy takes the classes second, (B, V, T); here they are last."""
    with pytest.raises(
        ValueError,
        match=r"target must be \(\.\.\.\) = \(2, 5\) beside logits \(2, 5, 3\), got \(2, 3\)",
    ):
        cross_entropy(random(2, 5, 3), torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"must be \(\.\.\., V\) = \(2, 5\) .* got \(5,\)"):
        cross_entropy(random(2, 5), torch.full((5,), 0.2))


@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_grad])
def test_target_probabilities_must_be_a_distribution(function):
    with pytest.raises(ValueError, match=r"must sum to 1 along dim -1, got a sum of 1.2"):
        function(random(2, 3), f64(0.4, 0.4, 0.4).expand(2, 3))
    with pytest.raises(ValueError, match=r"target must hold probabilities >= 0, got -0.5"):
        function(random(3), f64(-0.5, 1, 0.5))
    with pytest.raises(ValueError, match=r"target must hold probabilities >= 0, got nan"):
        function(random(2), f64(math.nan, 1))


@pytest.mark.parametrize("bad", [math.nan, INF])
def test_logits_without_a_finite_maximum_are_refused(bad):
    logits = random(3, 5)
    logits[1, 2] = bad
    with pytest.raises(ValueError, match=rf"needs a finite maximum, got {bad}"):
        cross_entropy(logits, classes(3, V=5))
    with pytest.raises(ValueError, match="needs a finite maximum, got -inf"):
        cross_entropy(torch.full((3, 5), -INF), classes(3, V=5))


def test_wrong_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        cross_entropy(torch.ones(3, 5, dtype=torch.long), classes(3, V=5))
    with pytest.raises(TypeError, match=r"target must hold integers, got torch\.bool"):
        cross_entropy(random(3, 5), torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        cross_entropy(random(3, 5), classes(3, V=5), weight=torch.ones(5, dtype=torch.long))


@pytest.mark.parametrize("shape", [(), (3, 0)])
def test_logits_need_a_class(shape):
    with pytest.raises(ValueError, match="hold no class: the last axis is the classes"):
        cross_entropy(torch.zeros(shape), torch.zeros(shape[:-1], dtype=torch.long))


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0, math.nan])
def test_smoothing_must_be_a_share(value):
    with pytest.raises(ValueError, match=rf"label_smoothing must be in \[0, 1\), got {value}"):
        cross_entropy(random(3, 5), classes(3, V=5), label_smoothing=value)


@pytest.mark.parametrize("value", [-0.1, INF, math.nan])
def test_z_loss_must_be_finite_and_not_negative(value):
    with pytest.raises(ValueError, match=f"z_loss must be at least 0 and finite, got {value}"):
        cross_entropy(random(3, 5), classes(3, V=5), z_loss=value)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(
        ValueError, match=r"reduction must be one of \['mean', 'sum', 'none'\], got 'batchmean'"
    ):
        cross_entropy(random(3, 5), classes(3, V=5), reduction="batchmean")


def test_class_weights_must_fit_and_not_all_vanish():
    logits, target = random(3, 5), torch.tensor([0, 1, 1])
    with pytest.raises(
        ValueError, match=r"weight must be \(V,\) = \(5,\) beside logits \(3, 5\), got \(3,\)"
    ):
        cross_entropy(logits, target, weight=torch.ones(3))
    for bad in (-1.0, math.nan, INF):
        weight = torch.ones(5)
        weight[2] = bad
        with pytest.raises(ValueError, match=rf"weight must be in \[0, inf\), got {bad:g}"):
            cross_entropy(logits, target, weight=weight)
    unseen = f64(0, 0, 1, 1, 1)
    with pytest.raises(ValueError, match="a weighted mean needs a positive weight"):
        cross_entropy(logits, target, weight=unseen)
    assert cross_entropy(logits, target, weight=unseen, reduction="sum") == 0


def test_kl_is_infinite_where_only_the_second_law_is_zero():
    half, sure = f64(0.5, 0.5), f64(1, 0)
    assert kl_divergence(half, sure) == INF
    close(kl_divergence(sure, half), scalar(math.log(2)))
    assert kl_divergence(sure, sure) == 0
    leaves = [f64(1, 0).requires_grad_(), f64(1, 0).requires_grad_()]
    for grad in torch.autograd.grad(kl_divergence(*leaves), leaves):
        assert grad.isfinite().all()


def test_kl_refuses_what_is_no_law():
    with pytest.raises(
        ValueError, match=r"q must be \(\.\.\.\) = \(2,\) beside p \(2,\), got \(3,\)"
    ):
        kl_divergence(f64(0.5, 0.5), f64(0.5, 0.5, 0))
    for name, pair in {
        "p": (f64(0.5, 0.6), f64(0.5, 0.5)),
        "q": (f64(0.5, 0.5), f64(0.5, 0.6)),
    }.items():
        with pytest.raises(ValueError, match=f"{name} must sum to 1"):
            kl_divergence(*pair)
    with pytest.raises(TypeError, match="q must be floating point"):
        kl_divergence(f64(0.5, 0.5), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("function", "name"), [(perplexity, "n_tokens"), (bits_per_byte, "n_bytes")]
)
def test_a_rate_needs_a_cost_and_a_count(function, name):
    for count in (0, -3):
        with pytest.raises(ValueError, match=rf"{name} must be in \(0, inf\], got {count}"):
            function(scalar(1.0), count)
    for nll in (-2.0, math.nan):
        with pytest.raises(
            ValueError, match=rf"nll_sum must be in \[0, inf\], got {nll:g}: it is a sum of"
        ):
            function(scalar(nll), 3)


def test_uniform_logits_have_perplexity_v():
    V = 7
    loss = cross_entropy(torch.zeros(4, V, dtype=F64), classes(4, V=V), reduction="sum")
    close(perplexity(loss, 4), scalar(float(V)))


def test_microbatches_that_make_no_sense_are_refused():
    with pytest.raises(
        ValueError, match=r"counts must be \(\.\.\.\) = \(2,\) beside loss_sums \(2,\), got \(1,\)"
    ):
        combine_microbatches(f64(1, 2), f64(1))
    with pytest.raises(ValueError, match=r"loss_sums must be in \[-inf, inf\], got nan"):
        combine_microbatches(f64(1, math.nan), f64(1, 1))
    for counts in (f64(0, 0), f64(-1, 3)):
        with pytest.raises(
            ValueError, match=r"counts must (be in \[0, inf\]|have a positive sum), got"
        ):
            combine_microbatches(f64(0, 1), counts)
    close(combine_microbatches(f64(0, 3), torch.tensor([0, 2])), scalar(1.5))


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hidden, head, target = head_inputs()
        linear_cross_entropy(hidden, head, target, chunk_size=2).backward()
        cross_entropy(hidden @ head.T, target, label_smoothing=0.1, z_loss=0.1).backward()
