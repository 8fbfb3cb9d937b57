"""PPO: the clipped loss of the policy, and the whole loss, as means over tokens."""

import torch


def ppo_loss(logp, old_logp, advantages, mask, clip):
    logp, old_logp = logp[mask], old_logp[mask]  # (n,), counted tokens
    A = advantages[mask]  # held fixed, as old_logp is
    ratio = torch.exp(logp - old_logp)  # 1 before the first update
    clipped = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(ratio * A, clipped * A)  # the smaller of both
    return -surrogate.mean()  # over all counted tokens of the batch


def whole_loss(policy_loss, values, returns, logits, mask, c_value, c_entropy):
    critic = (values - returns)[mask].square().mean() / 2  # values, returns: (N, T)
    logp = logits[mask].log_softmax(dim=-1)  # (n, V), all tokens of the vocabulary
    entropy = -(logp.exp() * logp).sum(dim=-1).mean()
    return policy_loss + c_value * critic - c_entropy * entropy
