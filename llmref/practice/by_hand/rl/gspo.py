"""GSPO: one ratio per response, the geometric mean of its tokens' ratios."""

import torch


def gspo_loss(logp, old_logp, advantages, mask, clip):
    log_ratio = torch.where(mask, logp - old_logp, 0.0)  # (N, T), per token
    s = torch.exp(log_ratio.sum(dim=1) / mask.sum(dim=1))  # (N,), per response
    clipped = s.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(s * advantages, clipped * advantages)  # (N,)
    return -surrogate.mean()
