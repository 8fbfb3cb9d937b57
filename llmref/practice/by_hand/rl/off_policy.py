"""Off-policy corrections: weights of tokens and texts, CISPO, PPO with a decoupled clip."""

import torch


def importance_weights(logp, rollout_logp, mask, level):
    log_w = torch.where(mask, logp - rollout_logp, 0.0)  # (N, T)
    if level == "prefix":
        log_w = log_w.cumsum(dim=1)
    if level == "sequence":
        log_w = log_w.sum(dim=1, keepdim=True).expand_as(log_w)
    return torch.where(mask, log_w.exp(), 0.0).detach()


def cispo_loss(logp, old_logp, advantages, mask, clip_high):
    logp, old_logp = logp[mask], old_logp[mask]  # counted tokens
    A = advantages[mask]
    w = torch.exp(logp - old_logp).clamp(max=1 + clip_high).detach()
    return -(w * A * logp).mean()


def decoupled_ppo_loss(logp, proximal_logp, rollout_logp, advantages, mask, clip):
    logp, A = logp[mask], advantages[mask]
    proximal, rollout = proximal_logp[mask], rollout_logp[mask]
    w = torch.exp(proximal - rollout).detach()  # who sampled; .clamp(max=C) is TIS
    rho = torch.exp(logp - proximal)  # where to clip
    surrogate = torch.minimum(rho * A, rho.clamp(1 - clip, 1 + clip) * A)
    return -(w * surrogate).mean()
