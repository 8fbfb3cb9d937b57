"""KTO on single responses; ORPO and SimPO on pairs, without a reference."""

import torch
from torch.nn.functional import logsigmoid


def kto_loss(policy, ref, desirable, kl, beta, w_d, w_u):  # (N,): sums over tokens; kl: ()
    h = beta * (policy - ref - kl.detach())  # the baseline has no gradient
    losses = torch.where(desirable, w_d * torch.sigmoid(-h), w_u * torch.sigmoid(h))
    return losses.mean()  # no logarithm: the loss is bounded


def odds_ratio_loss(chosen, rejected, chosen_lengths, rejected_lengths):  # (N,): sums, lengths
    mean_w = chosen / chosen_lengths  # log of P, the geometric mean of the tokens' probabilities
    mean_l = rejected / rejected_lengths
    odds_w = mean_w - torch.log(-torch.expm1(mean_w))  # log of P / (1 - P)
    odds_l = mean_l - torch.log(-torch.expm1(mean_l))
    return -logsigmoid(odds_w - odds_l).mean()


def orpo_loss(chosen, rejected, chosen_lengths, rejected_lengths, lam):
    sft = -(chosen / chosen_lengths).mean()  # supervised fine-tuning on the chosen response
    return sft + lam * odds_ratio_loss(chosen, rejected, chosen_lengths, rejected_lengths)


def simpo_loss(chosen, rejected, chosen_lengths, rejected_lengths, beta, gamma):
    gap = chosen / chosen_lengths - rejected / rejected_lengths
    return -logsigmoid(beta * gap - gamma).mean()  # gamma is not multiplied by beta
