"""DPO: the log-probability of a response, and the loss of preference pairs."""

import torch
from torch.nn.functional import logsigmoid


def response_logps(logits, labels, mask):
    logps = logits.log_softmax(dim=-1)  # (N, T, V), shifted: [:, t] predicts labels[:, t]
    labels = labels.clamp(min=0)  # padding may be -100
    tokens = logps.gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # (N, T)
    return torch.where(mask, tokens, 0.0).sum(dim=1)  # (N,): a sum, not a mean


def dpo_loss(pc, pr, rc, rr, beta):  # (N,); p: policy, r: reference; c: chosen, r: rejected
    chosen = pc - rc  # log of policy over reference, for the chosen response
    rejected = pr - rr  # the same for the rejected one
    h = beta * (chosen - rejected)  # difference of the implied rewards
    return -logsigmoid(h).mean()  # minus the log-likelihood of the labels
