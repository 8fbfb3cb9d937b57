"""What do comparisons fix about a reward, and what does choosing by that reward do to a policy?

Scores are numbers without a unit, one for each response. Leaves out: the network that gives them,
rewards for single steps, and optimisation by policy gradients (see ppo and grpo).
"""

import math
import sys

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from llmref._numeric import check_distribution, widen
from llmref._require import (
    require_axis,
    require_constant,
    require_finite,
    require_floating,
    require_in,
    require_shapes,
    require_size,
)
from llmref.rl._tokens import narrowed


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, *, margin: Tensor | None = None) -> Tensor:
    """Minus the log-likelihood of the labels, a mean over pairs, to be minimised.

    chosen 1, rejected 0: log(1 + 1/e) = 0.313. With margin 1 as well: log 2.
    Shapes: chosen (N,), rejected (N,), margin (N,) or None -> ()
    Source: Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, eq. 1; Touvron et al. 2023,
    arXiv:2307.09288 (margin).
    Differs: margins are constants and not negative; with one the loss is no likelihood.
    Raises: ValueError for no pair, tensors that are not (N,), scores or margins that are not
    finite, negative margins or such that require grad, a loss that overflows; TypeError for
    integers.
    """
    first, second = _pairs(chosen, rejected)
    gap = first - second
    if margin is not None:
        require_shapes("chosen (N,), margin (N,)", chosen=chosen, margin=margin)
        require_constant(margin=margin)
        wide = widen(margin, "margin")
        require_in("[0, inf)", margin=wide)
        gap = gap - wide
    loss = -logsigmoid(gap).mean()  # eq. eq-reward-loss
    return narrowed(loss, torch.result_type(chosen, rejected), "the loss")


def plackett_luce_loss(rewards: Tensor) -> Tensor:
    """Minus the log-likelihood of rankings, a mean over rankings, to be minimised.

    Scores stand in the order of the ranking, the best response first; K = 2 is Bradley-Terry.
    Shapes: rewards (N, K) -> ()
    Source: Plackett 1975.
    Raises: ValueError for no ranking, K < 2, scores that are not finite, a loss that overflows;
    TypeError for integers.
    """
    require_axis("K", 2, "rewards (N, K)", rewards=rewards)
    require_axis("N", 1, "rewards (N, K)", rewards=rewards)
    wide = _scores("rewards", rewards)
    left = wide.flip(-1).logcumsumexp(-1).flip(-1)  # (N, K), over those not yet placed
    loss = (left - wide).sum(-1).mean()  # eq. eq-reward-plackett-luce
    return narrowed(loss, rewards.dtype, "the loss")


def centering_penalty(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The mean square of the sum of a pair's scores, which is added to the loss of pairs.

    Shapes: chosen (N,), rejected (N,) -> ()
    Source: TRL's RewardTrainer, which multiplies it by center_rewards_coefficient.
    Raises: ValueError for no pair, tensors that are not (N,), scores that are not finite, a result
    that overflows; TypeError for integers.
    """
    first, second = _pairs(chosen, rejected)
    penalty = (first + second).square().mean()  # eq. eq-reward-centering
    return narrowed(penalty, torch.result_type(chosen, rejected), "the penalty")


def best_of_n_probs(probs: Tensor, rewards: Tensor, *, n: int) -> Tensor:
    """Distribution of the response with the highest score among n independent samples.

    Ties are broken by chance, each of the tied samples alike. (1/2, 1/2), scores (0, 1), n = 2:
    (1/4, 3/4).
    Shapes: probs (Y,), rewards (Y,) -> (Y,): all responses to one prompt
    Source: Beirami et al. 2024, arXiv:2401.01879.
    Differs: the source has no ties. The result sums to 1 whatever probs sum to within rounding.
    Raises: ValueError if the shapes differ, probs are no distribution or require grad, a score is
    not finite or requires grad, n < 1, or n is beyond float64; TypeError for integers, and for an
    n that is no int.
    """
    require_shapes("probs (Y,), rewards (Y,)", probs=probs, rewards=rewards)
    require_size(1, n=n)
    if n > sys.float_info.max:
        raise ValueError(f"n must be at most {sys.float_info.max:g}, got an int of more digits")
    check_distribution(probs, name="probs")
    require_constant(probs=probs, rewards=rewards)
    require_floating(rewards=rewards)
    require_finite(rewards=rewards)
    wide = probs.double()
    levels, level = torch.unique(rewards, return_inverse=True)  # ascending
    mass = wide.new_zeros(len(levels)).index_add(0, level, wide)
    upper = mass.cumsum(0)
    above = mass.flip(0).cumsum(0).flip(0).roll(-1)
    above[-1] = 0.0  # so the last F is 1 exactly, and so is its power
    share = mass / upper  # at most 1; 0 / 0 below the first level with mass, which gets 0
    total = upper[-1]
    # log F, near 1 from the mass above: 1 - 1e-17 is rounded to 1, but not its power of 1e16.
    log_upper = torch.where(above < upper, torch.log1p(-above / total), torch.log(upper / total))
    # F^n - F(-)^n, without the difference of two numbers that are almost equal.
    best = -torch.exp(float(n) * log_upper) * torch.expm1(float(n) * torch.log1p(-share))
    within = torch.where(mass > 0, best / mass, 0.0)  # eq. eq-reward-best-of-n
    return (wide * within[level]).to(probs.dtype)


def best_of_n_kl_bound(n: int) -> float:
    """What KL(best-of-n||base policy) is at most, in nats; reached by continuous scores.

    Source: Stiennon et al. 2020, arXiv:2009.01325; Beirami et al. 2024, arXiv:2401.01879, who
    prove that it is a bound.
    Raises: ValueError for n < 1; TypeError for an n that is no int.
    """
    require_size(1, n=n)
    return math.log(n) - (n - 1) / n  # eq. eq-reward-best-of-n-kl


def best_of_n_estimate(rewards: Tensor, *, n: int) -> Tensor:
    """Unbiased estimate of the mean score of best-of-n from N >= n independent samples.

    It is the mean of the maximum over all subsets of n. Scores of 0 and 1 give pass@n.
    Shapes: rewards (N,) -> ()
    Source: Chen et al. 2021, arXiv:2107.03374 (scores of 0 and 1).
    Raises: ValueError for n < 1, N < n, scores that are not finite; TypeError for integers, and
    for an n that is no int.
    """
    require_size(1, n=n)
    require_axis("N", n, "rewards (N,)", rewards=rewards)
    wide = _scores("rewards", rewards).sort().values
    N = len(wide)
    place = torch.arange(N, n, -1, dtype=torch.float64, device=wide.device)
    ratios = torch.cat([place.new_tensor([n / N]), (place - n) / (place - 1)])
    weights = ratios.cumprod(0).flip(0)  # (N - n + 1,): C(i - 1, n - 1) / C(N, n)
    # eq. eq-reward-best-of-n-estimate
    return narrowed(weights.to(wide.dtype) @ wide[n - 1 :], rewards.dtype, "the estimate")


def _scores(name: str, scores: Tensor) -> Tensor:
    require_floating(**{name: scores})
    require_finite(**{name: scores})
    return widen(scores, name)


def _pairs(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    require_shapes("chosen (N,), rejected (N,)", chosen=chosen, rejected=rejected)
    first, second = _scores("chosen", chosen), _scores("rejected", rejected)
    if not len(first):
        raise ValueError("there is no pair: a mean over nothing does not exist")
    return first, second
