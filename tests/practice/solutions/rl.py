"""Right solutions on rewards and preferences, each written in another way than by hand."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def kl_numbers(logp: Tensor, ref_logp: Tensor) -> tuple[Tensor, ...]:
    k1, k2, k3 = [], [], []
    for p, q in zip(logp.flatten().tolist(), ref_logp.flatten().tolist(), strict=True):
        k1.append(p - q)
        k2.append(0.5 * (p - q) ** 2)
        k3.append(math.exp(q - p) - 1 - (q - p))
    return tuple(torch.tensor(it, dtype=logp.dtype).reshape(logp.shape) for it in (k1, k2, k3))


def kl_numpy(logp: Tensor, ref_logp: Tensor) -> list[np.ndarray]:
    r = ref_logp.numpy() - logp.numpy()
    return [-r, np.square(r) / 2, np.expm1(r) - r]


def kl_from_k1(logp: Tensor, ref_logp: Tensor) -> list[Tensor]:
    k1 = logp - ref_logp
    return [k1, k1.square().mul(0.5), (ref_logp - logp).exp() - 1 + k1]


def gae_sums(
    rewards: Tensor, values: Tensor, gamma: float, lam: float
) -> tuple[list[Tensor], Tensor]:
    T = rewards.shape[-1]
    after = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    delta = rewards + gamma * after - values
    out = [
        sum((gamma * lam) ** (s - t) * delta[..., s] for s in range(t, T)) + 0 * delta[..., 0]
        for t in range(T)
    ]
    advantages = torch.stack(out, -1)
    return advantages, values + advantages  # type: ignore[return-value]


def gae_matrix(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    T = rewards.shape[-1]
    delta = rewards - values
    delta[..., :-1] += gamma * values[..., 1:]
    weights = torch.tensor(
        [[(gamma * lam) ** (s - t) if s >= t else 0.0 for s in range(T)] for t in range(T)],
        dtype=rewards.dtype,
    )
    advantages = torch.einsum("ts,...s->...t", weights, delta)
    return advantages, advantages + values


def gae_numpy(
    rewards: Tensor, values: Tensor, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    r, v = rewards.numpy(), values.numpy()
    targets = np.zeros_like(r)
    after_target, after_value = 0.0, 0.0
    for t in range(r.shape[-1] - 1, -1, -1):
        mixed = (1 - lam) * after_value + lam * after_target
        targets[..., t] = r[..., t] + gamma * mixed
        after_target, after_value = targets[..., t], v[..., t]
    return targets - v, targets


def ppo_where(logp: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    ratio = (logp - old).exp()
    limit = torch.where(advantages > 0, 1 + clip, 1 - clip) * advantages
    return -torch.where(mask, torch.min(ratio * advantages, limit), 0.0).sum() / mask.sum()


def ppo_maximum(logp: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    ratio = torch.exp(logp - old)
    loss = torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 1 - clip, 1 + clip))
    return (loss * mask).sum() / mask.sum()


def ppo_loops(logp: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> float:
    total, n = 0.0, 0
    for i in range(len(logp)):
        for t in range(logp.shape[1]):
            if mask[i, t]:
                ratio, a = math.exp(logp[i, t] - old[i, t]), float(advantages[i, t])
                total -= min(ratio * a, min(max(ratio, 1 - clip), 1 + clip) * a)
                n += 1
    return total / n


def dpo_softplus(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return functional.softplus(beta * ((pr - pc) - (rr - rc))).mean()


def dpo_numpy(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float) -> np.ndarray:
    h = beta * (pc - pr - rc + rr).numpy()
    return np.logaddexp(0, -h).mean()


def dpo_classifier(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    rewards = beta * torch.stack([pc - rc, pr - rr], dim=1)
    return functional.cross_entropy(rewards, torch.zeros(len(pc), dtype=torch.long))


SOLUTIONS = {
    "kl_estimates": [kl_numbers, kl_numpy, kl_from_k1],
    "gae": [gae_sums, gae_matrix, gae_numpy],
    "ppo_loss": [ppo_where, ppo_maximum, ppo_loops],
    "dpo_loss": [dpo_softplus, dpo_numpy, dpo_classifier],
}


def advantages_numpy(rewards: Tensor) -> np.ndarray:
    r = rewards.numpy()
    centred, std = r - r.mean(1, keepdims=True), r.std(1, ddof=1, keepdims=True)
    same = r.max(1, keepdims=True) == r.min(1, keepdims=True)
    return np.where(same, 0.0, centred / np.where(same, 1.0, std))


def advantages_loops(rewards: Tensor) -> list[list[float]]:
    out = []
    for group in rewards.tolist():
        mean = sum(group) / len(group)
        variance = sum((it - mean) ** 2 for it in group) / (len(group) - 1)
        equal = len(set(group)) == 1
        out.append([0.0 if equal else (it - mean) / math.sqrt(variance) for it in group])
    return out


def advantages_by_threshold(rewards: Tensor) -> Tensor:
    std, mean = torch.std_mean(rewards, dim=-1, keepdim=True)
    return torch.where(std > 1e-6, (rewards - mean) / std.clamp_min(1e-6), torch.zeros(1))


def grpo_loops(
    logp: Tensor, old: Tensor, ref: Tensor, adv: Tensor, mask: Tensor, clip: float, beta: float
) -> float:
    total = 0.0
    for i in range(len(logp)):
        losses = []
        for t in mask[i].nonzero().flatten().tolist():
            ratio, a = math.exp(logp[i, t] - old[i, t]), float(adv[i])
            r = float(ref[i, t] - logp[i, t])
            clipped = min(max(ratio, 1 - clip), 1 + clip)
            losses.append(beta * (math.exp(r) - 1 - r) - min(ratio * a, clipped * a))
        total += sum(losses) / len(losses)
    return total / len(logp)


def grpo_weighted(
    logp: Tensor, old: Tensor, ref: Tensor, adv: Tensor, mask: Tensor, clip: float, beta: float
) -> Tensor:
    weights = mask / mask.sum(-1, keepdim=True)
    ratio, a = (logp - old).exp(), adv.unsqueeze(-1)
    per_token = torch.max(-a * ratio, -a * ratio.clip(1 - clip, 1 + clip))
    kl = (ref - logp).exp() - (ref - logp) - 1
    return torch.einsum("nt,nt->", weights, per_token + beta * kl) / len(logp)


def grpo_selected(
    logp: Tensor, old: Tensor, ref: Tensor, adv: Tensor, mask: Tensor, clip: float, beta: float
) -> np.ndarray:
    means = []
    for x, o, q, a, m in zip(*(it.numpy() for it in (logp, old, ref, adv, mask)), strict=True):
        x, o, q = x[m], o[m], q[m]
        ratio = np.exp(x - o)
        limit = 1 + clip if a > 0 else 1 - clip
        k3 = np.expm1(q - x) - (q - x)
        means.append(np.mean(beta * k3 - np.minimum(ratio * a, limit * a)))
    return np.mean(means)


def gspo_loops(logp: Tensor, old: Tensor, adv: Tensor, mask: Tensor, clip: float) -> float:
    total = 0.0
    for i in range(len(logp)):
        logs = [float(logp[i, t] - old[i, t]) for t in range(logp.shape[1]) if mask[i, t]]
        s, a = math.prod(math.exp(it) for it in logs) ** (1 / len(logs)), float(adv[i])
        total -= min(s * a, min(max(s, 1 - clip), 1 + clip) * a)
    return total / len(logp)


def gspo_means(logp: Tensor, old: Tensor, adv: Tensor, mask: Tensor, clip: float) -> Tensor:
    gaps = torch.stack([(x - o)[m].mean() for x, o, m in zip(logp, old, mask, strict=True)])
    s = gaps.exp()
    return torch.max(-s * adv, -s.clip(1 - clip, 1 + clip) * adv).mean()


def gspo_masked(logp: Tensor, old: Tensor, adv: Tensor, mask: Tensor, clip: float) -> np.ndarray:
    gap = np.ma.masked_array((logp - old).numpy(), ~mask.numpy()).mean(axis=1)
    s, a = np.exp(np.asarray(gap)), adv.numpy()
    return -np.where(a > 0, np.minimum(s, 1 + clip) * a, np.maximum(s, 1 - clip) * a).mean()


SOLUTIONS |= {
    "group_advantages": [advantages_numpy, advantages_loops, advantages_by_threshold],
    "grpo_loss": [grpo_loops, grpo_weighted, grpo_selected],
    "gspo_loss": [gspo_loops, gspo_means, gspo_masked],
}
