"""Reward models: the losses of pairs and of rankings, and what best-of-n would score."""

import math

from torch.nn.functional import logsigmoid


def bradley_terry_loss(chosen, rejected, margin):  # (N,) each
    return -logsigmoid(chosen - rejected - margin).mean()  # margin inside


def plackett_luce_loss(r):  # (N, K), the best first
    left = r.flip(-1).logcumsumexp(-1)  # (N, K), over the last 1, 2, .., K of a ranking
    return (left.sum(-1) - r.sum(-1)).mean()  # each place: a choice among those left


def best_of_n_estimate(r, n):  # (N,), N >= n: mean of the maximum over all subsets of n
    r = r.sort().values  # the maximum is r[i] where the other n - 1 are below it
    ways = [math.comb(i, n - 1) / math.comb(len(r), n) for i in range(len(r))]
    return (r.new_tensor(ways) * r).sum()
