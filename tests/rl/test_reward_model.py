"""Reward models: losses of pairs and rankings, best-of-n, and what they refuse."""

import math
from fractions import Fraction
from itertools import combinations, permutations, product

import pytest
import torch

from llmref.rl.reward_model import (
    best_of_n_estimate,
    best_of_n_kl_bound,
    best_of_n_probs,
    bradley_terry_loss,
    centering_penalty,
    plackett_luce_loss,
)
from tests.tensors import close, f64, random

CHOSEN, REJECTED, MARGIN = random(4), random(4, seed=1), random(4, seed=2).abs()


# ---------------------------------------------------------------- losses


def test_losses_worked_by_hand():
    """Odds 3 to 1: log 4/3. Weights 4, 2, 1 in order: 4/7 of 2/3. Sums 3 and -1: (9 + 1)/2."""
    close(bradley_terry_loss(f64(math.log(3)), f64(0.0)), torch.tensor(4 / 3).double().log(), 1e-7)
    loss = bradley_terry_loss(f64(2.0), f64(0.5), margin=f64(1.5))
    close(loss, f64(math.log(2))[0])
    loss = plackett_luce_loss(f64((4.0, 2.0, 1.0)).log())
    close(loss, f64(math.log(7 / 4) + math.log(3 / 2))[0])
    assert centering_penalty(f64(1.0, 0.0), f64(2.0, -1.0)) == 5


def test_pairs_equal_a_loop():
    losses = [
        math.log1p(math.exp(r + m - c))
        for c, r, m in zip(CHOSEN.tolist(), REJECTED.tolist(), MARGIN.tolist(), strict=True)
    ]
    close(bradley_terry_loss(CHOSEN, REJECTED, margin=MARGIN), f64(sum(losses) / 4)[0])


def test_rankings_equal_a_loop():
    r, total = random(3, 5), 0.0
    for row in r.tolist():
        for k in range(5):
            total += math.log(sum(math.exp(x) for x in row[k:])) - row[k]
    close(plackett_luce_loss(r), f64(total / 3)[0])


def test_two_responses_are_a_pair():
    close(
        plackett_luce_loss(torch.stack([CHOSEN, REJECTED], 1)), bradley_terry_loss(CHOSEN, REJECTED)
    )


def test_orders_are_a_distribution_with_the_right_pairs():
    r = random(4)
    chance = {o: (-plackett_luce_loss(r[list(o)][None])).exp() for o in permutations(range(4))}
    close(sum(chance.values()), f64(1.0)[0])
    for i, j in combinations(range(4), 2):
        before = sum(p for o, p in chance.items() if o.index(i) < o.index(j))
        close(before, (r[i] - r[j]).sigmoid())


def test_a_shift_of_a_prompt_changes_nothing():
    shift = f64(5.0, -3.0, 100.0, 0.0)
    moved = bradley_terry_loss(CHOSEN + shift, REJECTED + shift, margin=MARGIN)
    close(moved, bradley_terry_loss(CHOSEN, REJECTED, margin=MARGIN))
    r = random(4, 3)
    close(plackett_luce_loss(r + shift[:, None]), plackett_luce_loss(r))


def test_gradients():
    leaves = [x.clone().requires_grad_() for x in (CHOSEN, REJECTED)]
    assert torch.autograd.gradcheck(lambda a, b: bradley_terry_loss(a, b, margin=MARGIN), leaves)
    assert torch.autograd.gradcheck(centering_penalty, leaves)
    assert torch.autograd.gradcheck(plackett_luce_loss, random(2, 3).requires_grad_())
    scores = random(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: best_of_n_estimate(r, n=3), scores)


def test_large_scores_and_narrow_types():
    far = torch.tensor([-1000.0, 1000.0]), torch.tensor([0.0, 0.0])
    assert bradley_terry_loss(*far) == 500
    assert plackett_luce_loss(torch.tensor([[-1000.0, 1000.0, 0.0]])) == 2000
    for dtype in (torch.bfloat16, torch.float16):
        narrow = CHOSEN.to(dtype), REJECTED.to(dtype)
        loss = bradley_terry_loss(*narrow)
        assert loss.dtype == dtype
        close(loss.double(), bradley_terry_loss(*(x.double() for x in narrow)), atol=4e-3)
    with pytest.raises(ValueError, match=r"the loss overflows torch.float16"):
        plackett_luce_loss(torch.tensor([[-6e4, 6e4]], dtype=torch.float16))
    with pytest.raises(ValueError, match=r"the penalty overflows torch.float32"):
        centering_penalty(torch.tensor([1e30]), torch.tensor([1e30]))


def test_a_far_best_response_costs_the_others_no_digits():
    """Log(1 + e^-2.5) is what the order of the other two costs; float32 near 1e8 has steps of 8."""
    loss = plackett_luce_loss(torch.tensor([[1e8, 3.0, 0.5]]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2.5)), rel=1e-5)


# ---------------------------------------------------------------- best-of-n


def test_best_of_n_probs_worked_by_hand():
    """Of (1/2, 1/2), both draws are the worse one with 1/4; tied responses stay as they are."""
    half = f64(0.5, 0.5)
    close(best_of_n_probs(half, f64(0.0, 1.0), n=2), f64(0.25, 0.75))
    close(best_of_n_probs(f64(0.2, 0.8), f64(3.0, 3.0), n=9), f64(0.2, 0.8))


@pytest.mark.parametrize("scores", [(0, 1, 2), (2, 0, 1), (1, 0, 1), (0, 0, 0)])
def test_best_of_n_probs_equal_all_draws_in_fractions(scores):
    p, n = [Fraction(1, 6), Fraction(1, 2), Fraction(1, 3)], 4
    expected = [Fraction(0)] * 3
    for draw in product(range(3), repeat=n):
        top = max(scores[y] for y in draw)
        tied = [y for y in draw if scores[y] == top]
        for y in tied:
            expected[y] += math.prod(p[z] for z in draw) / len(tied)
    found = best_of_n_probs(f64(*map(float, p)), f64(*map(float, scores)), n=n)
    close(found, f64(*map(float, expected)), atol=1e-15)


def test_best_of_n_probs_keep_their_digits_and_their_sum():
    p = f64(1e-30, 0.3, 0.7 - 1e-20, 1e-20)
    found = best_of_n_probs(p, f64(0.0, 1.0, 2.0, 3.0), n=10)
    torch.testing.assert_close(found[3], f64(1e-19)[0], rtol=1e-12, atol=0)
    assert best_of_n_probs(f64(0.0, 1.0, 0.0), f64(0.0, 1.0, 2.0), n=5).tolist() == [0, 1, 0]
    many = torch.full((1000,), 0.001, dtype=torch.float64)
    total = best_of_n_probs(many, torch.arange(1000.0), n=10_000).sum()
    close(total, f64(1.0)[0], atol=1e-11)


@pytest.mark.parametrize("total", [1 - 5e-5, 1 + 5e-5])
def test_what_the_probabilities_miss_one_by_does_not_matter(total):
    p, scores = f64(1e-30, 0.3, 0.5, 0.2), f64(0.0, 1.0, 2.0, 3.0)
    found, expected = (best_of_n_probs(x, scores, n=10) for x in (total * p, p))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("rare", "n"), [(1e-17, 10**16), (1e-16, 10**15), (1e-17, 10**19)])
def test_a_rare_best_response_and_very_many_samples(rare, n):
    """1 - 1e-17 is rounded to 1, but its power of 1e16 is exp(-0.1): all others lose that share."""
    found = best_of_n_probs(f64(rare, 0.75, 0.25), f64(2.0, 1.0, 0.0), n=n)
    missed = math.exp(-rare * n)
    close(found, f64(1 - missed, missed, 0.0), atol=1e-14)


def test_as_many_samples_as_a_float_counts_find_the_best():
    most = int(torch.finfo(torch.float64).max)
    assert best_of_n_probs(f64(0.5, 0.5), f64(0.0, 1.0), n=most).tolist() == [0, 1]


def test_the_bound_worked_by_hand_and_nearly_reached():
    """Log 1 - 0 = 0; log 2 - 1/2. A thousand equal outcomes miss log 4 - 3/4 by 1e-6."""
    assert best_of_n_kl_bound(1) == 0
    assert best_of_n_kl_bound(2) == pytest.approx(0.1931, abs=1e-4)
    p = torch.full((1000,), 0.001, dtype=torch.float64)
    best = best_of_n_probs(p, torch.arange(1000.0), n=4)
    kl = (best * (best / p).log()).sum().item()
    assert 0 < best_of_n_kl_bound(4) - kl < 1e-6


def test_estimate_worked_by_hand():
    """Subsets of two of (1, 2, 4): maxima 2, 4, 4. Two right of five: 1 - C(3, 3)/C(5, 3)."""
    close(best_of_n_estimate(f64(2.0, 4.0, 1.0), n=2), f64(10 / 3)[0])
    close(best_of_n_estimate(f64(0.0, 1.0, 0.0, 0.0, 1.0), n=3), f64(0.9)[0])


@pytest.mark.parametrize("n", [1, 3, 6])
def test_estimate_equals_all_subsets(n):
    r = random(6)
    maxima = [max(subset) for subset in combinations(r.tolist(), n)]
    close(best_of_n_estimate(r, n=n), f64(sum(maxima) / len(maxima))[0])


def test_estimate_of_many_samples():
    """Binomials of 3000 overflow; the ratios do not. Ranks: n (N + 1) / (n + 1)."""
    close(
        best_of_n_estimate(torch.arange(1.0, 3001.0).double(), n=1000),
        f64(1000 * 3001 / 1001)[0],
        1e-8,
    )


# ---------------------------------------------------------------- refusals


def test_what_is_refused():
    pair = CHOSEN, REJECTED
    refused = {
        r"rejected must be \(N,\) = \(4,\)": lambda: bradley_terry_loss(CHOSEN, REJECTED[:3]),
        r"chosen must be \(N,\)": lambda: bradley_terry_loss(CHOSEN[:, None], REJECTED),
        r"margin must be \(N,\) = \(4,\)": lambda: bradley_terry_loss(
            *pair, margin=MARGIN[:, None]
        ),
        r"margin must be in \[0, inf\)": lambda: bradley_terry_loss(*pair, margin=-MARGIN),
        r"margin must not require grad": lambda: bradley_terry_loss(
            *pair, margin=MARGIN.clone().requires_grad_()
        ),
        r"there is no pair": lambda: bradley_terry_loss(CHOSEN[:0], REJECTED[:0]),
        r"chosen must be finite": lambda: centering_penalty(CHOSEN / 0, REJECTED),
        r"rejected must be finite": lambda: bradley_terry_loss(CHOSEN, REJECTED / 0),
        r"with K >= 2": lambda: plackett_luce_loss(CHOSEN[:, None]),
        r"with N >= 1": lambda: plackett_luce_loss(CHOSEN.new_zeros(0, 3)),
        r"rewards must be finite": lambda: plackett_luce_loss(f64((1.0, math.nan))),
        r"rewards must be \(Y,\) = \(2,\)": lambda: best_of_n_probs(f64(0.5, 0.5), f64(1.0), n=1),
        r"probs must sum to 1": lambda: best_of_n_probs(f64(0.5, 0.4), f64(1.0, 2.0), n=1),
        r"n must be at least 1": lambda: best_of_n_probs(f64(0.5, 0.5), f64(1.0, 2.0), n=0),
        r"rewards must be finite,": lambda: best_of_n_probs(f64(0.5, 0.5), f64(1.0, math.inf), n=1),
        r"probs must not require grad": lambda: best_of_n_probs(
            f64(0.5, 0.5).requires_grad_(), f64(1.0, 2.0), n=1
        ),
        r"n must be at most 1.79769e\+308": lambda: best_of_n_probs(
            f64(0.5, 0.5), f64(1.0, 2.0), n=10**400
        ),
        r"n must be at least 1,": lambda: best_of_n_kl_bound(0),
        r"with N >= 5": lambda: best_of_n_estimate(CHOSEN, n=5),
        r"n must be at least 1, got 0": lambda: best_of_n_estimate(CHOSEN, n=0),
    }
    for message, call in refused.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_integers_are_refused():
    ids = torch.tensor([1, 0])
    for call in (
        lambda: bradley_terry_loss(ids, ids),
        lambda: plackett_luce_loss(ids[None]),
        lambda: best_of_n_probs(f64(0.5, 0.5), ids, n=2),
        lambda: best_of_n_estimate(ids, n=1),
        lambda: bradley_terry_loss(f64(1.0, 2.0), f64(1.0, 2.0), margin=ids),
    ):
        with pytest.raises(TypeError, match="must be floating point, got torch.int64"):
            call()
    with pytest.raises(TypeError, match="n must be an int, got 2.0"):
        best_of_n_kl_bound(2.0)
