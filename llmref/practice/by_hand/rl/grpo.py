"""GRPO: advantages from the rewards of a group, and the clipped loss with its KL term."""

import torch


def group_advantages(rewards):
    centred = rewards - rewards.mean(dim=1, keepdim=True)  # (groups, G)
    std = rewards.std(dim=1, keepdim=True)  # (groups, 1), divides by G - 1
    mixed = (rewards != rewards[:, :1]).any(dim=1, keepdim=True)  # (groups, 1)
    return torch.where(mixed, centred / std, 0.0)  # equal rewards teach nothing


def grpo_loss(logp, old_logp, ref_logp, advantages, mask, clip, beta):
    A = advantages[:, None]  # (N, 1): one number for all tokens of a response
    ratio = torch.exp(logp - old_logp)  # (N, T)
    surrogate = torch.minimum(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A)
    r = ref_logp - logp
    k3 = torch.expm1(r) - r  # its value estimates KL(policy || reference)
    loss = torch.where(mask, beta * k3 - surrogate, 0.0)
    per_response = loss.sum(dim=1) / mask.sum(dim=1)  # (N,)
    return per_response.mean()
