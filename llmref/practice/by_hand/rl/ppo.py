"""PPO: the clipped loss of the policy, a mean over tokens."""

import torch


def ppo_loss(logp, old_logp, advantages, mask, clip):
    logp, old_logp = logp[mask], old_logp[mask]  # (n,), counted tokens
    A = advantages[mask]  # held fixed, as old_logp is
    ratio = torch.exp(logp - old_logp)  # 1 before the first update
    clipped = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(ratio * A, clipped * A)  # the smaller of both
    return -surrogate.mean()  # over all counted tokens of the batch
