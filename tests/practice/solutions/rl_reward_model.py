"""Right solutions on reward models, each written in another way than the code by hand."""

import itertools
import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


def by_softplus(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    return softplus(rejected + margin - chosen).mean()


def by_cross_entropy(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    logits = chosen - margin - rejected
    return binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def pair_by_pair(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    losses = [
        torch.stack([c - m, r]).logsumexp(0) - (c - m)
        for c, r, m in zip(chosen, rejected, margin, strict=True)
    ]
    return torch.stack(losses).mean()


def place_by_place(r: Tensor) -> Tensor:
    total = r.new_zeros(())
    for row in r:
        for k in range(len(row)):
            total = total - row[k:].log_softmax(0)[0]
    return total / len(r)


def by_mask(r: Tensor) -> Tensor:
    K = r.shape[1]
    left = torch.where(torch.ones(K, K).triu().bool(), r[:, None, :], -torch.inf)
    return (left.logsumexp(-1) - r).sum() / len(r)


def from_the_end(r: Tensor) -> Tensor:
    left, total = r[:, -1], r.new_zeros(len(r))
    for k in range(r.shape[1] - 2, -1, -1):
        left = torch.logaddexp(left, r[:, k])
        total = total + left - r[:, k]
    return total.mean()


def over_all_subsets(r: Tensor, n: int) -> Tensor:
    return torch.stack([torch.stack(c).max() for c in itertools.combinations(r, n)]).mean()


def from_the_largest(r: Tensor, n: int) -> Tensor:
    N, total, weight = len(r), r.new_zeros(()), n / len(r)
    for place, score in enumerate(r.sort(descending=True).values):
        total = total + weight * score
        if place + 1 < N:
            weight *= (N - n - place) / (N - 1 - place)
    return total


def by_survival(r: Tensor, n: int) -> Tensor:
    """As pass@k: the chance that all n are among the i smallest, times the step upwards."""
    r, N = r.sort().values, len(r)
    total = r[-1]
    for i in range(n, N):
        total = total - math.comb(i, n) / math.comb(N, n) * (r[i] - r[i - 1])
    return total


SOLUTIONS = {
    "bradley_terry_loss": [by_softplus, by_cross_entropy, pair_by_pair],
    "plackett_luce_loss": [place_by_place, by_mask, from_the_end],
    "best_of_n_estimate": [over_all_subsets, from_the_largest, by_survival],
}
