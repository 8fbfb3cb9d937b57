"""Policy gradients: REINFORCE's loss, leave-one-out advantages, and GAE."""

import torch


def reinforce_loss(logp, advantages, mask):  # (N, T); advantages (N, T) or (N, 1)
    weighted = torch.where(mask, advantages * logp, 0.0)  # advantages carry no gradient
    return -weighted.sum(dim=1).mean()  # sum over tokens, mean over responses


def rloo_advantages(rewards):
    G = rewards.shape[1]  # (groups, G)
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (G - 1)
    return rewards - others


def gae(rewards, values, gamma, lam):  # one response without padding, or several
    advantages = torch.zeros_like(rewards)  # (..., T)
    running, next_value = 0.0, 0.0  # nothing follows the last token
    for t in reversed(range(rewards.shape[-1])):
        delta = rewards[..., t] + gamma * next_value - values[..., t]  # (...)
        running = delta + gamma * lam * running
        advantages[..., t], next_value = running, values[..., t]
    return advantages, advantages + values  # and the critic's targets
