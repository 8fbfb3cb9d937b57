"""KL penalties from log-probabilities of sampled tokens."""

import torch


def kl_estimates(logp, ref_logp):
    r = ref_logp - logp  # log of reference over policy, at the sampled tokens
    k1 = -r  # unbiased; can be negative
    k2 = r**2 / 2  # biased; as a loss it follows KL(policy || reference)
    k3 = torch.expm1(r) - r  # unbiased and never negative
    return k1, k2, k3


def kl_in_loss(logp, ref_logp, old_logp, mask):
    logp, ref_logp, old_logp = logp[mask], ref_logp[mask], old_logp[mask]  # no padding
    ratio = torch.exp(logp - old_logp)  # detached, k3 would follow KL(reference || policy)
    return (ratio * kl_estimates(logp, ref_logp)[2]).sum() / len(mask)  # per response


def kl_in_reward(logp, ref_logp, mask):
    k1 = kl_estimates(logp, ref_logp)[0].detach()  # k1 alone: k2 and k3 would switch it off
    return torch.where(mask, k1, 0.0)
