"""InfoNCE, the CLIP loss, the decoupled loss, the bound on mutual information, and the geometry."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmref.functional.info_nce import (
    alignment,
    clip_loss,
    clip_loss_from_scores,
    decoupled_contrastive,
    info_nce,
    info_nce_from_scores,
    mi_lower_bound,
    uniformity,
)
from llmref.functional.softmax import softmax
from tests.tensors import random

F64 = torch.float64
INF = math.inf

law = settings(deadline=None, max_examples=60)
rows = st.lists(st.floats(-300, 300), min_size=2, max_size=6).map(
    lambda entries: torch.tensor([entries], dtype=F64)
)
FIRST = torch.zeros(1, dtype=torch.long)


def close(actual, expected, atol=1e-12):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def test_loss_of_two_rows_by_hand():
    """Row (0, log 3), positive 0: log(1 + 3). Row (0, 0), positive 1: log 2."""
    scores = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], dtype=F64)
    close(info_nce_from_scores(scores, reduction="none"), [math.log(4), math.log(2)])
    close(info_nce_from_scores(scores), 1.5 * math.log(2))
    close(info_nce_from_scores(scores, reduction="sum"), 3 * math.log(2))
    close(info_nce_from_scores(scores, torch.tensor([1, 0])), (math.log(4 / 3) + math.log(2)) / 2)


def test_without_the_positive_the_same_rows_cost_less():
    """The negatives alone: log 3 - 0 and 0 - 0."""
    scores = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], dtype=F64)
    close(decoupled_contrastive(scores, reduction="none"), [math.log(3), 0.0])
    close(decoupled_contrastive(scores), math.log(3) / 2)
    close(decoupled_contrastive(scores, reduction="sum"), math.log(3))


def test_clip_loss_of_two_pairs_by_hand():
    """Rows (log 4, log 2); columns (0, 0) and (log 3, 0), so (log 2, log 4)."""
    scores = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], dtype=F64)
    close(clip_loss_from_scores(scores, reduction="none"), [1.5 * math.log(2)] * 2)
    close(clip_loss_from_scores(scores), 1.5 * math.log(2))
    close(clip_loss_from_scores(scores, reduction="sum"), 3 * math.log(2))


def test_alignment_and_uniformity_of_two_vectors_by_hand():
    """Orthogonal unit vectors are sqrt(2) apart, opposite ones 2: exp(-2 * 4)."""
    x, y = torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([[0.0, 1.0]], dtype=F64)
    close(alignment(x, y), 2.0)
    close(alignment(x, y, alpha=1), math.sqrt(2))
    close(uniformity(torch.cat([x, -x])), -8.0)
    close(uniformity(torch.cat([x, y]), t=3), -6.0)


def test_no_information_is_certified_by_a_loss_of_log_n():
    close(mi_lower_bound(torch.tensor([0.0, math.log(4)], dtype=F64), 4), [math.log(4), 0.0])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("negatives", [None, (4, 5), (3, 4, 5)])
def test_loss_equals_the_definition_written_as_a_loop(normalize, negatives):
    query, key = random(3, 5), random(3, 5, seed=1)
    others = None if negatives is None else random(*negatives, seed=2)

    def unit(v):
        return v / v.norm() if normalize else v

    expected = []
    for i in range(3):
        if others is None:
            keys = [key[i]] + [key[j] for j in range(3) if j != i]
        else:
            keys = [key[i], *(others if others.ndim == 2 else others[i])]
        scores = [math.exp((unit(query[i]) @ unit(k)).item() / 0.3) for k in keys]
        expected.append(-math.log(scores[0] / sum(scores)))
    actual = info_nce(
        query, key, temperature=0.3, negatives=others, normalize=normalize, reduction="none"
    )
    close(actual, expected)


def test_clip_loss_equals_the_definition_written_as_a_loop():
    image, text = random(3, 5), random(3, 5, seed=1)
    expected = []
    for i in range(3):
        row = [math.exp(4 * torch.cosine_similarity(image[i], t, dim=0)) for t in text]
        column = [math.exp(4 * torch.cosine_similarity(x, text[i], dim=0)) for x in image]
        expected.append(-(math.log(row[i] / sum(row)) + math.log(column[i] / sum(column))) / 2)
    close(clip_loss(image, text, logit_scale=4.0, reduction="none"), expected)
    close(clip_loss(image, text, logit_scale=torch.tensor(4.0)), sum(expected) / 3)


def test_clip_loss_is_the_mean_of_both_directions_of_info_nce():
    image, text = random(4, 5), random(4, 5, seed=1)
    both = info_nce(image, text, temperature=0.2) + info_nce(text, image, temperature=0.2)
    close(clip_loss(image, text, logit_scale=5.0), both / 2)


def test_alignment_and_uniformity_equal_loops():
    x, y = random(4, 3), random(4, 3, seed=1)
    pairs = list(itertools.combinations(range(4), 2))
    close(alignment(x, y, 3.0), sum((x[i] - y[i]).norm() ** 3 for i in range(4)) / 4)
    mean = sum(torch.exp(-2 * (x[i] - x[j]).square().sum()) for i, j in pairs) / len(pairs)
    close(uniformity(x), mean.log())


@given(rows)
@law
def test_loss_is_never_negative_and_log_n_for_equal_scores(scores):
    assert info_nce_from_scores(scores, FIRST) >= 0
    close(info_nce_from_scores(torch.zeros_like(scores), FIRST), math.log(scores.shape[1]))


@given(rows, st.floats(-1e3, 1e3))
@law
def test_a_constant_for_the_row_changes_nothing(scores, constant):
    close(
        info_nce_from_scores(scores + constant, FIRST),
        info_nce_from_scores(scores, FIRST),
        atol=1e-11,
    )


def test_the_decoupled_loss_equals_the_definition_written_as_a_loop():
    scores, positive = random(3, 5), [4, 0, 2]
    expected = [
        math.log(sum(math.exp(scores[i, j]) for j in range(5) if j != k)) - scores[i, k]
        for i, k in enumerate(positive)
    ]
    close(decoupled_contrastive(scores, torch.tensor(positive), reduction="none"), expected)


@given(rows)
@law
def test_loss_is_softplus_of_the_decoupled_loss(scores):
    decoupled = decoupled_contrastive(scores, FIRST)
    close(info_nce_from_scores(scores, FIRST), torch.nn.functional.softplus(decoupled), atol=1e-8)


def test_the_positive_counts_once_in_the_denominator():
    """Left out, one equal negative would cost 0; counted twice, log 3 instead of log 2."""
    x = torch.ones(1, 2, dtype=F64)
    close(info_nce(x, x, negatives=x, temperature=1.0), math.log(2))
    with pytest.raises(AssertionError):
        close(info_nce(x, x, negatives=torch.cat([x, x]), temperature=1.0), math.log(2))


def test_a_well_separated_row_costs_almost_nothing_but_not_less():
    """Without the positive in the denominator the loss of (10, 0, 0) is log 2 - 10."""
    scores = torch.tensor([[10.0, 0.0, 0.0]], dtype=F64)
    assert 0 < info_nce_from_scores(scores, FIRST) < 1e-4
    close(decoupled_contrastive(scores, FIRST), math.log(2) - 10)


def test_the_temperature_divides():
    query, key = random(3, 5), random(3, 5, seed=1)
    cosine = torch.nn.functional.normalize(query) @ torch.nn.functional.normalize(key).T
    for tau in (0.1, torch.tensor(0.1, dtype=F64)):
        close(info_nce(query, key, temperature=tau), info_nce_from_scores(cosine / 0.1))
    close(info_nce(query, key), info_nce_from_scores(cosine / 0.07))


def test_the_length_of_a_vector_does_not_matter_when_normalised():
    query, key = random(3, 5), random(3, 5, seed=1)
    close(info_nce(7 * query, key / 3), info_nce(query, key))
    close(clip_loss(7 * query, key / 3, logit_scale=2.0), clip_loss(query, key, logit_scale=2.0))
    assert (
        info_nce(7 * query, key, normalize=False) - info_nce(query, key, normalize=False)
    ).abs() > 1


def test_swapping_modalities_or_permuting_pairs_changes_no_clip_loss():
    image, text = random(4, 5), random(4, 5, seed=1)
    order = torch.tensor([2, 0, 3, 1])
    loss = clip_loss(image, text, logit_scale=3.0)
    close(clip_loss(text, image, logit_scale=3.0), loss)
    close(clip_loss(image[order], text[order], logit_scale=3.0), loss)
    assert (clip_loss(image[order], text, logit_scale=3.0) - loss).abs() > 0.01


def test_a_candidate_of_score_minus_infinity_is_no_candidate():
    scores = random(3, 5)
    masked = torch.cat([scores, torch.full((3, 2), -INF, dtype=F64)], dim=1)
    close(info_nce_from_scores(masked), info_nce_from_scores(scores))
    close(decoupled_contrastive(masked), decoupled_contrastive(scores))


def test_two_views_of_a_batch_need_their_own_view_masked():
    """In the layout of SimCLR the self-similarity 1 / tau would beat every other score."""
    views = torch.nn.functional.normalize(random(6, 5))
    scores = views @ views.T / 0.1
    partner = torch.arange(6).roll(3)
    masked = scores.masked_fill(torch.eye(6, dtype=torch.bool), -INF)
    assert (scores.argmax(1) == torch.arange(6)).all()
    expected = []
    for i in range(6):
        others = [math.exp(scores[i, j]) for j in range(6) if j != i]
        expected.append(-math.log(math.exp(scores[i, (i + 3) % 6]) / sum(others)))
    close(info_nce_from_scores(masked, partner, reduction="none"), expected)
    assert info_nce_from_scores(scores, partner) > info_nce_from_scores(masked, partner) + 1


def test_more_candidates_than_rows_are_allowed_on_the_diagonal():
    scores = random(2, 5)
    expected = info_nce_from_scores(scores, torch.tensor([0, 1]))
    close(info_nce_from_scores(scores), expected)


def test_the_gradient_of_the_scores_is_softmax_minus_one_hot():
    scores = random(3, 5).requires_grad_()
    positive = torch.tensor([4, 0, 2])
    (grad,) = torch.autograd.grad(info_nce_from_scores(scores, positive, reduction="sum"), scores)
    expected = softmax(scores.detach()) - torch.nn.functional.one_hot(positive, 5)
    close(grad, expected)


def test_the_gradient_of_a_normalised_query_is_orthogonal_to_it():
    query, key = random(3, 5).requires_grad_(), random(3, 5, seed=1)
    (grad,) = torch.autograd.grad(info_nce(query, key), query)
    close((grad * query).sum(-1), [0.0, 0.0, 0.0])
    assert grad.norm() > 0.1


@pytest.mark.parametrize("negatives", [None, (2, 4), (3, 2, 4)])
def test_autograd_agrees_with_finite_differences(negatives):
    leaves = [random(3, 4).requires_grad_(), random(3, 4, seed=1).requires_grad_()]
    others = None if negatives is None else random(*negatives, seed=2)
    tau = torch.tensor(0.5, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, k, t: info_nce(q, k, temperature=t, negatives=others), [*leaves, tau]
    )
    scale = torch.tensor(1.3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, y, s: clip_loss(x, y, logit_scale=s.exp()), [*leaves, scale]
    )
    assert torch.autograd.gradcheck(lambda x, y: alignment(x, y) + uniformity(x), leaves)
    assert torch.autograd.gradcheck(decoupled_contrastive, random(3, 4).requires_grad_())


def test_the_bound_holds_for_every_score_and_fails_without_the_positive():
    """A 2 x 2 table with 2/5 on the diagonal: I = log 2 - H(1/5) = 0.1927 nats."""
    joint = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=F64)
    information = (joint * (joint / 0.25).log()).sum()
    close(information, math.log(2) + 0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    for seed in range(5):
        table = (joint / 0.25).log() if seed == 0 else random(2, 2, seed=seed)
        for n in (2, 3, 5):
            outcomes = torch.cartesian_prod(*[torch.arange(2)] * (n + 1))
            x, keys = outcomes[:, 0], outcomes[:, 1:]
            weight = joint[x, keys[:, 0]] * 0.5 ** (n - 1)
            scores = table[x[:, None], keys]
            first = torch.zeros(len(scores), dtype=torch.long)
            loss = weight @ info_nce_from_scores(scores, first, reduction="none")
            assert mi_lower_bound(loss, n) <= information + 1e-12
            if seed == 0:
                decoupled = weight @ decoupled_contrastive(scores, first, reduction="none")
                assert math.log(n - 1) - decoupled > information


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_is_accepted_with_the_loss_in_float32_or_wider(dtype):
    query, key = random(4, 64).to(dtype), random(4, 64, seed=1).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    for function in (
        info_nce,
        lambda q, k: info_nce(q, k, negatives=k, normalize=False, temperature=8.0),
        lambda q, k: clip_loss(q, k, logit_scale=10.0),
        alignment,
        lambda q, k: uniformity(q / 8),
        lambda q, k: decoupled_contrastive(q[:, :4]),
    ):
        actual = function(query, key)
        assert actual.dtype == wide
        expected = function(query.double(), key.double())
        tolerance = 1e-12 if dtype == F64 else 2e-5
        torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("value", [0.0, -1.0, INF, math.nan])
def test_a_temperature_or_scale_that_is_not_positive_is_refused(value):
    x = random(3, 5)
    for name, call in {
        "temperature": lambda: info_nce(x, x, temperature=value),
        "logit_scale": lambda: clip_loss(x, x, logit_scale=torch.tensor(value)),
        "alpha": lambda: alignment(x, x, value),
        "t": lambda: uniformity(x, value),
    }.items():
        with pytest.raises(ValueError, match=f"{name} must be positive and finite, got {value:g}"):
            call()


def test_a_vector_without_direction_is_refused():
    x = random(3, 5)
    zero = x.clone()
    zero[1] = 0
    for call in (
        lambda: info_nce(zero, x),
        lambda: info_nce(x, zero),
        lambda: info_nce(x, x, negatives=zero),
        lambda: clip_loss(zero, x, logit_scale=1.0),
    ):
        with pytest.raises(ValueError, match="has length 0 and no direction"):
            call()
    zero[1] = math.nan
    with pytest.raises(ValueError, match="a vector of key has length nan"):
        info_nce(x, zero)
    assert info_nce(x.clone().fill_(0), x, normalize=False).isfinite()


def test_a_loss_without_negatives_is_refused():
    x = random(1, 5)
    for call in (
        lambda: info_nce(x, x),
        lambda: clip_loss(x, x, logit_scale=1.0),
        lambda: info_nce_from_scores(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)),
        lambda: decoupled_contrastive(torch.zeros(1, 1)),
        lambda: info_nce(x, x, negatives=x[:0]),
    ):
        with pytest.raises(ValueError, match=r"at least one negative, so N >= 2, got"):
            call()
    with pytest.raises(ValueError, match="no negative with a finite score"):
        decoupled_contrastive(torch.tensor([[0.0, -INF]]))


def test_shapes_that_do_not_fit_are_refused():
    x = random(3, 5)
    with pytest.raises(
        ValueError, match=r"key must be \(B, D\) = \(3, 5\) beside query \(3, 5\), got \(2, 5\)"
    ):
        info_nce(x, x[:2])
    with pytest.raises(
        ValueError, match=r"text must be \(B, D\) = \(3, 5\) beside image \(3, 5\), got \(2, 5\)"
    ):
        clip_loss(x, x[:2], logit_scale=1.0)
    with pytest.raises(
        ValueError, match=r"negatives must be \(K, D\) beside query \(3, 5\), got \(4, 3\)"
    ):
        info_nce(x, x, negatives=random(4, 3))
    with pytest.raises(
        ValueError, match=r"negatives must be \(B, K, D\) beside query \(3, 5\), got \(2, 4, 5\)"
    ):
        info_nce(x, x, negatives=random(2, 4, 5))
    with pytest.raises(ValueError, match=r"scores must be \(B, N\) .* got \(5,\)"):
        info_nce_from_scores(torch.zeros(5))
    with pytest.raises(ValueError, match=r"a column for each row, got \(3, 2\)"):
        info_nce_from_scores(torch.zeros(3, 2))
    with pytest.raises(
        ValueError, match=r"positive must be \(B,\) = \(3,\) beside scores \(3, 5\), got \(2,\)"
    ):
        info_nce_from_scores(torch.zeros(3, 5), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"scores must be \(B, B\), got \(3, 5\)"):
        clip_loss_from_scores(torch.zeros(3, 5))
    with pytest.raises(
        ValueError, match=r"y must be \(B, D\) = \(3, 5\) beside x \(3, 5\), got \(3, 4\)"
    ):
        alignment(x, x[:, :4])
    with pytest.raises(ValueError, match=r"x must be \(B, D\) with B >= 2, got \(1, "):
        uniformity(x[:1])


def test_no_row_has_no_mean():
    for call in (
        lambda: alignment(random(0, 5), random(0, 5)),
        lambda: info_nce_from_scores(torch.zeros(0, 5)),
        lambda: clip_loss(random(0, 5), random(0, 5), logit_scale=1.0),
    ):
        with pytest.raises(ValueError, match=r"must be \(B, .*\) with .*, got \(0, "):
            call()


@pytest.mark.parametrize("column", [-1, 5])
def test_a_positive_outside_the_columns_is_refused(column):
    with pytest.raises(ValueError, match=rf"positive holds the id {column}, outside \[0, 5\)"):
        info_nce_from_scores(torch.zeros(2, 5), torch.tensor([0, column]))


def test_wrong_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"positive must hold integers, got torch\.bool"):
        info_nce_from_scores(torch.zeros(2, 5), torch.tensor([True, False]))
    whole = torch.ones(2, 5, dtype=torch.long)
    for call in (
        lambda: info_nce(whole, whole),
        lambda: info_nce_from_scores(whole),
        lambda: decoupled_contrastive(whole),
        lambda: clip_loss(whole, whole, logit_scale=1.0),
        lambda: alignment(whole, whole),
        lambda: uniformity(whole),
    ):
        with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
            call()


def test_a_row_without_finite_maximum_is_refused():
    scores = torch.zeros(2, 3)
    scores[1, 2] = math.nan
    with pytest.raises(ValueError, match="needs a finite maximum, got nan"):
        info_nce_from_scores(scores)


def test_another_reduction_is_refused():
    with pytest.raises(
        ValueError, match=r"reduction must be one of \['mean', 'sum', 'none'\], got 'average'"
    ):
        info_nce(random(2, 3), random(2, 3), reduction="average")


def test_a_negative_loss_certifies_nothing():
    """It shows that the positive was left out of the denominator."""
    with pytest.raises(ValueError, match=r"is >= 0, got -10: is the positive in the denominator"):
        mi_lower_bound(torch.tensor(-10.0), 4)
    with pytest.raises(ValueError, match="got nan"):
        mi_lower_bound(torch.tensor(math.nan), 4)
    with pytest.raises(ValueError, match=r"at least 2, got 1"):
        mi_lower_bound(torch.tensor(0.0), 1)


@pytest.mark.parametrize("size", [1e-38, 1e-23, 1e-22, 1e19, 1e38])
def test_embeddings_of_any_length_have_the_same_loss(size):
    query, key = random(4, 3).float(), random(4, 3, seed=1).float()
    query, key = query / query.abs().max(), key / key.abs().max()
    expected = info_nce(query, key, temperature=0.5)
    close(info_nce(size * query, key, temperature=0.5), expected, atol=1e-5)
    both = clip_loss(query, key, logit_scale=2.0)
    close(clip_loss(size * query, key, logit_scale=2.0), both, 1e-5)


@pytest.mark.parametrize("bad", [INF, math.nan])
def test_a_vector_that_is_not_finite_has_no_direction(bad):
    with pytest.raises(ValueError, match=f"a vector of key has length {bad:g} and no direction"):
        info_nce(torch.ones(2, 3), torch.tensor([[1.0, 2, bad], [1, 2, 3]]), temperature=1.0)


def test_a_vector_without_entries_is_refused():
    with pytest.raises(ValueError, match=r"query must be \(\.\.\., D\) with D >= 1, got \(2, 0\)"):
        info_nce(torch.ones(2, 0), torch.ones(2, 0), temperature=1.0)


def test_tensors_of_two_dtypes_give_the_wider_one():
    query, key, others = random(3, 4), random(3, 4, seed=1), random(2, 4, seed=2)
    for loss in (
        lambda q, k: info_nce(q, k, temperature=0.5),
        lambda q, k: info_nce(q, k, temperature=0.5, normalize=False),
        lambda q, k: info_nce(q, k, temperature=0.5, negatives=others.to(k.dtype)),
        lambda q, k: clip_loss(q, k, logit_scale=2.0),
    ):
        mixed = loss(query, key.float())
        assert mixed.dtype == F64
        close(mixed, loss(query, key), atol=1e-6)


def test_a_temperature_for_each_row_is_refused():
    with pytest.raises(ValueError, match=r"temperature must be one number, got \(3,\)"):
        info_nce(torch.ones(3, 2), torch.ones(3, 2), temperature=torch.ones(3))
    with pytest.raises(ValueError, match=r"logit_scale must be one number, got \(3,\)"):
        clip_loss(torch.ones(3, 2), torch.ones(3, 2), logit_scale=torch.ones(3))
    one = info_nce(random(3, 2), random(3, 2, seed=1), temperature=torch.tensor([0.5]))
    close(one, info_nce(random(3, 2), random(3, 2, seed=1), temperature=0.5))


@pytest.mark.parametrize("bad", [INF, -INF, math.nan])
def test_a_positive_that_is_not_finite_has_no_decoupled_loss(bad):
    with pytest.raises(ValueError, match="scores must be finite where it is the positive's, got"):
        decoupled_contrastive(torch.tensor([[bad, 1.0], [0.0, 1.0]]))


def test_pairs_at_distance_zero_have_no_gradient():
    """The other pair has distance 4: the mean of 4^(1/2) and 0 is 1, its slope 1 / 8 along it."""
    x = torch.tensor([[1.0, 1.0], [4.0, 0.0]], dtype=F64, requires_grad=True)
    value = alignment(x, torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=F64), alpha=0.5)
    value.backward()
    close(value.detach(), 1.0)
    close(x.grad, [[0, 0], [0.125, 0]])


def test_distances_that_are_not_finite_are_refused():
    for x in (torch.tensor([[math.nan, 1.0]]), torch.full((1, 2), 3e38)):
        with pytest.raises(ValueError, match="distance must be finite"):
            alignment(x, -x)
    for x in (torch.tensor([[math.nan, 1.0], [0.0, 0.0]]), 1e20 * torch.eye(2)):
        with pytest.raises(ValueError, match="square_distance must be finite"):
            uniformity(x)
