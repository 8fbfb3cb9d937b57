"""Distillation: numbers by hand, slow loops, edges, gradients, and every error."""

import math

import mpmath
import pytest
import torch

from llmref.functional.distillation import (
    forward_kl_loss,
    generalized_jsd_loss,
    on_policy_kl_loss,
    reverse_kl_loss,
    top_k_kl_loss,
)
from tests.tensors import close, f64, gradient, random

ONE = torch.ones(1, 1, dtype=torch.bool)
INF = float("inf")
MASK = torch.arange(4) < torch.tensor([[4], [2], [1]])
STUDENT, TEACHER = random(3, 4, 5), random(3, 4, 5, seed=1)


def one(*numbers):
    """Logits at one position."""
    return f64(*numbers)[None, None]


def divergences(student, teacher, mask=ONE, agg="token-mean"):
    hot = {"temperature": 2.0, "agg": agg}
    k = min(2, student.shape[-1])
    top = (x.detach() for x in teacher.float().log_softmax(-1).topk(k))
    logps, ids = top
    return [
        forward_kl_loss(student, teacher, mask, **hot),
        reverse_kl_loss(student, teacher, mask, **hot),
        generalized_jsd_loss(student, teacher, mask, beta=0.3, agg=agg),
        top_k_kl_loss(student, logps, ids, mask, tail="bucket", agg=agg),
        top_k_kl_loss(student, logps, ids, mask, tail="renormalize", agg=agg),
    ]


def test_a_quarter_against_a_half():
    """KL = 1/4 log(1/2) + 3/4 log(3/2) and 1/2 log 2 + 1/2 log(2/3); the mixture of halves is
    (3/8, 5/8): JSD = 1/2 (1/4 log(2/3) + 3/4 log(6/5)) + 1/2 (1/2 log(4/3) + 1/2 log(4/5)).
    """
    student, teacher = one(0.0, 0.0), one(0.0, math.log(3))
    found = [
        forward_kl_loss(student, teacher, ONE, temperature=1, agg="token-mean"),
        reverse_kl_loss(student, teacher, ONE, temperature=1, agg="token-mean"),
        generalized_jsd_loss(student, teacher, ONE, beta=0.5, agg="token-mean"),
    ]
    log = math.log
    jsd = (log(2 / 3) / 4 + log(6 / 5) * 3 / 4 + log(4 / 3) / 2 + log(4 / 5) / 2) / 2
    close(
        torch.stack(found),
        f64(log(1 / 2) / 4 + 3 / 4 * log(3 / 2), log(2) / 2 + log(2 / 3) / 2, jsd),
    )


def test_one_stored_token_by_hand():
    """With p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), the first stored: the bucket is
    1/2 log 2 + 1/2 log(2/3), the renormalised teacher log 4.
    """
    student = one(1 / 4, 1 / 4, 1 / 2).log()
    logps, ids = one(1 / 2).log(), torch.zeros(1, 1, 1, dtype=torch.long)
    for tail, expected in (("bucket", math.log(4 / 3) / 2), ("renormalize", math.log(4))):
        found = top_k_kl_loss(student, logps, ids, ONE, tail=tail, agg="token-mean")
        assert found.item() == pytest.approx(expected, abs=1e-12)


def test_definitions_as_loops():
    expected = dict.fromkeys(("forward", "reverse", "jsd"), 0.0)
    for n in range(3):
        for t in range(4):
            if MASK[n, t]:
                p, q = (x[n, t].div(2).softmax(-1).tolist() for x in (TEACHER, STUDENT))
                a, b = (x[n, t].softmax(-1).tolist() for x in (TEACHER, STUDENT))
                for j in range(5):
                    m = 0.3 * a[j] + 0.7 * b[j]
                    expected["forward"] += 4 * p[j] * math.log(p[j] / q[j]) / 7
                    expected["reverse"] += 4 * q[j] * math.log(q[j] / p[j]) / 7
                    jsd = 0.3 * a[j] * math.log(a[j] / m) + 0.7 * b[j] * math.log(b[j] / m)
                    expected["jsd"] += jsd / 7
    close(torch.stack(divergences(STUDENT, TEACHER, MASK)[:3]), f64(*expected.values()))


def test_top_k_as_a_loop_and_all_tokens_stored():
    logps, ids = TEACHER.log_softmax(-1).topk(2)
    expected = 0.0
    for n, t in MASK.nonzero().tolist():
        q, rest_p, rest_q = STUDENT[n, t].softmax(-1), 1.0, 1.0
        for logp, j in zip(logps[n, t].tolist(), ids[n, t].tolist(), strict=True):
            expected += math.exp(logp) * (logp - math.log(q[j]))
            rest_p, rest_q = rest_p - math.exp(logp), rest_q - q[j].item()
        expected += rest_p * math.log(rest_p / rest_q)
    found = top_k_kl_loss(STUDENT, logps, ids, MASK, tail="bucket", agg="token-mean")
    assert found.item() == pytest.approx(expected / 7, abs=1e-12)
    whole = forward_kl_loss(STUDENT, TEACHER, MASK, temperature=1, agg="token-mean")
    for tail in ("bucket", "renormalize"):
        stored = TEACHER.log_softmax(-1).topk(5)
        close(top_k_kl_loss(STUDENT, *stored, MASK, tail=tail, agg="token-mean"), whole)


def test_on_policy_by_hand_and_as_a_loop():
    """Log-ratios 1 and 2: the first token is charged 3, the second 2."""
    logp, teacher = f64((-1.0, -2.0)), f64((-2.0, -4.0))
    both = torch.ones(1, 2, dtype=torch.bool)
    options = {"agg": "seq-mean-token-sum"}
    for future, charges in ((True, (3.0, 2.0)), (False, (1.0, 2.0))):

        def loss(x, future=future):
            return on_policy_kl_loss(x, teacher, both, future=future, **options)

        close(gradient(loss, logp), f64(charges))
        assert loss(logp).item() == pytest.approx(-charges[0] - 2 * charges[1])
    logp, teacher = -random(3, 4).abs(), -random(3, 4, seed=1).abs()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for n, t in MASK.nonzero().tolist():
        expected[n, t] = sum((logp - teacher)[n, u] for u in range(t, 4) if MASK[n, u]) / (3 * 2)
    found = gradient(
        lambda x: on_policy_kl_loss(x, teacher, MASK, future=True, agg="constant", norm=2), logp
    )
    close(found, expected)


def test_equal_models_and_a_single_token_cost_nothing():
    for student, teacher in ((TEACHER, TEACHER + 3), (STUDENT[..., :1], TEACHER[..., :1])):
        found = divergences(student, teacher, MASK)
        close(torch.stack(found[:3]), torch.zeros(3, dtype=torch.float64), atol=1e-14)
    logp = -random(3, 4).abs()
    assert on_policy_kl_loss(logp, logp, MASK, future=True, agg="seq-mean-token-sum") == 0


def test_a_token_that_both_exclude_is_no_token():
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[..., 2], teacher[..., 2] = -INF, -INF
    fewer = [0, 1, 3, 4]

    def flat(student, teacher):
        return torch.stack(divergences(student, teacher, MASK))

    close(flat(student, teacher), flat(student[..., fewer], teacher[..., fewer]), atol=1e-7)
    for k in range(5):
        slope = gradient(lambda s, k=k: flat(s, teacher)[k], student)
        assert slope.isfinite().all()
        assert (slope[..., 2] == 0).all()
    logps, ids = teacher.log_softmax(-1).float().topk(4)  # a rest of rounding, no token for it
    found = top_k_kl_loss(student, logps, ids, MASK, tail="bucket", agg="token-mean")
    full = forward_kl_loss(student, teacher, MASK, temperature=1, agg="token-mean")
    close(found, full, atol=1e-6)


def test_gaps_of_thousands_and_high_temperatures_in_float32():
    """1000 nats: the forward KL is 1000. At temperature 10^4 rounding is not multiplied."""
    student, teacher = one(0.0, 1000.0).float(), one(1000.0, 0.0).float()
    for loss in (forward_kl_loss, reverse_kl_loss):
        assert loss(student, teacher, ONE, temperature=1, agg="token-mean") == 1000
    jsd = generalized_jsd_loss(student, teacher, ONE, beta=0.5, agg="token-mean")
    assert jsd.item() == pytest.approx(math.log(2))
    hot = forward_kl_loss(STUDENT.float(), TEACHER.float(), MASK, temperature=1e4, agg="token-mean")
    half_variance = (STUDENT - TEACHER).var(-1, correction=0)[MASK].mean() / 2
    assert hot.item() == pytest.approx(half_variance.item(), rel=1e-3)


@pytest.mark.parametrize("loss", [forward_kl_loss, reverse_kl_loss])
@pytest.mark.parametrize("gap", [1.0, 0.01, 1e-8])
def test_a_high_temperature_multiplies_no_rounding(loss, gap):
    """The limits are Var(d) / 2 and (d - mean d) / V, and the error is of the order 1 / tau."""
    student = TEACHER[:1, :1] + gap * random(1, 1, 5, seed=2)
    d = student - TEACHER[:1, :1]
    centred = d - d.mean()
    half_variance = centred.square().mean().item() / 2
    for tau in (1e8, 1e12, 1e20, 1e100, 1e150):

        def hot(student, tau=tau):
            return loss(student, TEACHER[:1, :1], ONE, temperature=tau, agg="token-mean")

        assert hot(student).item() == pytest.approx(half_variance, rel=1e-7, abs=0)
        close(gradient(hot, student) / gap, centred / 5 / gap, atol=1e-7)


def test_both_formulas_of_the_divergence_meet():
    """A centred gap of .0099 is compared by the series, one of .0101 by logarithms."""
    teacher = one(0.3, -0.2)
    for tau in (0.5, 3.0):
        for largest in (0.0099, 0.0101):
            p = teacher.div(tau).softmax(-1)[0, 0]
            d = tau * largest / p[0].item()  # the centred gaps are p[1] d / tau, and -p[0] d / tau
            student = teacher + one(d, 0.0)
            q = student.div(tau).softmax(-1)[0, 0]
            for loss, a, b in ((forward_kl_loss, p, q), (reverse_kl_loss, q, p)):
                found = loss(student, teacher, ONE, temperature=tau, agg="token-mean")
                wanted = tau**2 * (a * (a / b).log()).sum()
                assert found.item() == pytest.approx(wanted.item(), rel=1e-9, abs=0)
            slope = gradient(
                lambda s, tau=tau: forward_kl_loss(
                    s, teacher, ONE, temperature=tau, agg="token-mean"
                ),
                student,
            )
            close(slope[0, 0], tau * (q - p), atol=1e-13)


@pytest.mark.parametrize(
    ("p", "gap", "rel"), [(0.02, 0.0099, 1e-14), (0.1, 0.0101, 1e-11), (0.3, 0.09, 1e-12)]
)
def test_the_series_ends_where_it_is_exact_and_not_later(p, gap, rel):
    """Against 40 digits: the centred gap of a token with probability p is just in it, or not."""
    teacher = f64(p, 1 - p).log()[None, None]
    student = teacher + one(gap / (1 - p), 0.0)
    found = forward_kl_loss(student, teacher, ONE, temperature=1, agg="token-mean").item()
    with mpmath.workdps(40):

        def softmax(logits):
            weights = [mpmath.exp(z) for z in logits.flatten().tolist()]
            return [weight / sum(weights) for weight in weights]

        pairs = list(zip(softmax(teacher), softmax(student), strict=True))
        exact = sum(a * mpmath.log(a / b) for a, b in pairs)
        assert abs(found / exact - 1) < rel


def test_digits_depend_on_no_constant_in_the_logits_and_on_no_token_that_both_exclude():
    """Far gaps would be compared by logarithms, whose rounding is multiplied."""
    teacher = TEACHER[:1, :1]
    excluded = torch.full((1, 1, 1), -INF, dtype=torch.float64)
    for loss in (forward_kl_loss, reverse_kl_loss):

        def at(student, teacher, tau, loss=loss):
            return loss(student, teacher, ONE, temperature=tau, agg="token-mean").item()

        near = teacher + STUDENT[:1, :1] / 100
        wanted = at(near, teacher, 1e4)
        assert at(near + 1000, teacher, 1e4) == pytest.approx(wanted, rel=1e-8, abs=0)
        near = teacher + STUDENT[:1, :1] / 1e6
        pair = (torch.cat([x, excluded], -1) for x in (near, teacher))
        assert at(*pair, 1) == pytest.approx(at(near, teacher, 1), rel=1e-8, abs=0)


def test_the_backward_pass_meets_no_nan():
    """Anomaly detection refuses a NaN that is replaced later, too: at padding, at a token that
    both exclude, and for the rest if all tokens are stored.
    """
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[..., 2], teacher[..., 2] = -INF, -INF
    logps, ids = teacher.log_softmax(-1).topk(5)
    student[~MASK], logps[~MASK] = math.nan, math.nan
    student.requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        losses = divergences(student, teacher, MASK)
        for tail in ("bucket", "renormalize"):
            options = {"tail": tail, "agg": "token-mean"}
            losses.append(top_k_kl_loss(student, logps, ids, MASK, **options))
        for loss in losses:
            assert torch.autograd.grad(loss, student)[0].isfinite().all()


@pytest.mark.parametrize("gap", [40, 1000])
def test_the_students_tail_survives(gap):
    """A student that gives the other token e^-40: in float32 1 - q(S) would be 0, and the loss
    infinite; in float64 e^-1000 is 0.
    """
    ids = torch.zeros(1, 1, 1, dtype=torch.long)
    loss = top_k_kl_loss(
        one(0.0, -gap).float(), one(0.5).log(), ids, ONE, tail="bucket", agg="token-mean"
    )
    assert loss.item() == pytest.approx(math.log(0.5) / 2 + (math.log(0.5) + gap) / 2, rel=1e-6)


def test_a_mass_above_one_by_rounding_is_one():
    logps, ids = one(0.75, 0.2504).log(), torch.tensor([[[2, 0]]])
    exact = one(0.75, 0.25).log()
    student = one(0.3, -0.2, 1.0)
    options = {"tail": "bucket", "agg": "token-mean"}
    found, wanted = (top_k_kl_loss(student, p, ids, ONE, **options) for p in (logps, exact))
    close(found, wanted, atol=1e-3)


def test_half_precision_is_computed_wide():
    student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
    found = divergences(student, teacher, MASK)
    assert {it.dtype for it in found} == {torch.float32}
    close(torch.stack(found), torch.stack(divergences(student.float(), teacher.float(), MASK)))


@pytest.mark.parametrize("k", range(5))
def test_gradients(k):
    student = random(1, 2, 3).requires_grad_()
    mask = torch.tensor([[True, False]])
    assert torch.autograd.gradcheck(
        lambda s: divergences(s, random(1, 2, 3, seed=1), mask)[k], student, fast_mode=True
    )


def test_wrong_arguments_are_refused():
    mean = {"agg": "token-mean"}
    for change, message in (
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": INF}, "temperature must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            forward_kl_loss(STUDENT, TEACHER, MASK, **mean, **change)
    for beta in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"beta must be in \(0, 1\), .* take forward or"):
            generalized_jsd_loss(STUDENT, TEACHER, MASK, beta=beta, **mean)
    with pytest.raises(ValueError, match="teacher_logits must not require grad"):
        forward_kl_loss(STUDENT, TEACHER.clone().requires_grad_(), MASK, temperature=1, **mean)
    with pytest.raises(ValueError, match=r"teacher_logits must be \(N, T, V\)"):
        reverse_kl_loss(STUDENT, TEACHER[..., :4], MASK, temperature=1, **mean)
    with pytest.raises(TypeError, match="student_logits must be floating point"):
        forward_kl_loss(STUDENT.long(), TEACHER, MASK, temperature=1, **mean)
    excluded = one(0.0, -INF)
    for pair, loss in (
        ((excluded, one(0.0, 0.0)), forward_kl_loss),
        ((one(0.0, 0.0), excluded), reverse_kl_loss),
    ):
        with pytest.raises(ValueError, match=r"infinite at the counted position \[0, 0\]"):
            loss(*pair, ONE, temperature=1, **mean)
        other = reverse_kl_loss if loss is forward_kl_loss else forward_kl_loss
        assert other(*pair, ONE, temperature=1, **mean).item() == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="finite maximum"):
        forward_kl_loss(one(-INF, -INF), one(0.0, 0.0), ONE, temperature=1, **mean)


def test_wrong_top_k_is_refused():
    ids = torch.tensor([[[0, 2]]])
    student, logps = one(0.0, 1.0, 2.0), one(0.5, 0.3).log()

    def loss(logps=logps, ids=ids, tail="bucket", student=student):
        return top_k_kl_loss(student, logps, ids, ONE, tail=tail, agg="token-mean")

    for change, message in (
        ({"tail": "drop"}, "tail must be one of"),
        ({"ids": torch.tensor([[[2, 2]]])}, "must differ at a position, got 2 twice"),
        ({"ids": torch.tensor([[[0, 3]]])}, r"holds the id 3, outside \[0, 3\)"),
        ({"logps": one(0.8, 0.3).log()}, "tokens must be at most 1, but .* got 1.1"),
        ({"logps": logps.clone().requires_grad_()}, "must not require grad"),
        ({"logps": one(math.nan, -1.0)}, r"teacher_top_logps must be in \[-inf, inf\)"),
        ({"logps": one(-INF, -INF), "tail": "renormalize"}, "have the mass 0"),
        ({"student": one(0.0, -INF, 1.0)}, "infinite at the counted position"),
        (
            {"logps": one(0.5, 0.3, 0.1).log(), "ids": torch.tensor([[[0, 2, 1]]])},
            "the teacher's 3 of 3 tokens must be 1, .* got 0.9",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            loss(**change)
    with pytest.raises(TypeError, match="must hold integers"):
        loss(ids=ids.double())


def test_wrong_samples_are_refused():
    logp = -random(3, 4).abs()
    summed = {"agg": "seq-mean-token-sum", "future": True}
    for agg in ("token-mean", "seq-mean-token-mean"):
        with pytest.raises(ValueError, match="which the student chooses"):
            on_policy_kl_loss(logp, logp, MASK, future=True, agg=agg)
    with pytest.raises(ValueError, match="teacher_logp must not require grad"):
        on_policy_kl_loss(logp, logp.clone().requires_grad_(), MASK, **summed)
    with pytest.raises(ValueError, match="teacher_logp must be finite where the mask counts"):
        on_policy_kl_loss(logp, logp - INF, MASK, **summed)
    for most in (2e-6, 5.0):
        with pytest.raises(ValueError, match="logp holds log-probabilities, at most 0"):
            on_policy_kl_loss(torch.full_like(logp, most), logp, MASK, **summed)
    rounded = torch.full_like(logp, 1e-6)
    assert on_policy_kl_loss(rounded, rounded, MASK, **summed) == 0
