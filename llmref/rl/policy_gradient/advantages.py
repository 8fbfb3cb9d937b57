"""How far ahead does an advantage look before it trusts the critic?

k-step advantages and their exponentially weighted average, on finite responses.
Leaves out: whitening (see baselines), the critic's loss (see ppo).
"""

import torch
from torch import Tensor
from torch.nn import functional

from llmref._numeric import wide_dtype
from llmref._require import require_in, require_size
from llmref.functional._tokens import token_mask
from llmref.rl._tokens import last_values, narrowed, token_values


def k_step_advantage(
    rewards: Tensor,
    values: Tensor,
    k: int,
    *,
    gamma: float,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Sum k discounted TD errors from each token on, or all that are left of the response.

    Shapes: rewards (N, T), values (N, T), bootstrap (N,) -> (N, T)
    Source: Schulman et al. 2015, arXiv:1506.02438.
    Differs: past the end of the response there is nothing, so every k beyond it gives the same.
    `bootstrap` is the value after the last token, 0 without it.
    Raises: ValueError for k < 1, gamma outside [0, 1], tensors that do not fit, are not finite or
    require grad, an advantage that overflows; TypeError for integer tensors or a k that is no int.
    """
    require_size(1, k=k)
    require_in("[0, 1]", gamma=gamma)
    every = token_mask(None, rewards=rewards, values=values)
    reward, value = _constants(rewards, values, every)
    length = reward.shape[1]
    after = last_values(bootstrap, reward, constant=True).unsqueeze(1)  # (N, 1)
    following = torch.cat([value[:, 1:], after], dim=1)[:, :length]
    errors = reward + gamma * following - value  # (N, T), eq. eq-pg-td
    steps = min(k, length)
    padded = functional.pad(errors, (0, steps))  # (N, T + steps)
    total = torch.zeros_like(errors)
    for later in range(steps):
        total = total + gamma**later * padded[:, later : later + length]  # eq. eq-pg-kstep
    return narrowed(total, rewards.dtype, "an advantage")


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    bootstrap: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Average the k-step advantages with weights lam^k; the second result is the critic's target.

    Shapes: rewards (N, T), values (N, T), mask (N, T) or None for all, bootstrap (N,)
    -> advantages (N, T), returns = advantages + values (N, T), both 0 where the mask leaves out
    Source: Schulman et al. 2015, arXiv:1506.02438.
    Differs: a position that the mask leaves out is skipped: the value and the trace pass through
    it, at no discount, and a reward written there is lost: that of a whole response belongs on its
    last counted token. `bootstrap` is the value after that token, 0 without it.
    Raises: ValueError for gamma or lam outside [0, 1], tensors that do not fit, are not finite
    where the mask counts or require grad, a result that overflows; TypeError for integer tensors.
    """
    require_in("[0, 1]", gamma=gamma, lam=lam)
    counted = token_mask(mask, rewards=rewards, values=values)
    reward, value = _constants(rewards, values, counted)
    following = last_values(bootstrap, reward, constant=True)  # (N,)
    trace = torch.zeros_like(following)
    traces = []
    for t in reversed(range(reward.shape[1])):
        here = counted[:, t]
        error = reward[:, t] + gamma * following - value[:, t]  # eq. eq-pg-td
        trace = torch.where(here, error + gamma * lam * trace, trace)  # eq. eq-pg-gae-recursion
        following = torch.where(here, value[:, t], following)
        traces.append(trace)
    if not traces:
        return rewards.clone(), rewards.clone()
    advantages = torch.where(counted, torch.stack(traces[::-1], dim=1), 0.0)
    returns = advantages + value  # eq. eq-pg-lambda-return; value is 0 under the mask
    return (
        narrowed(advantages, rewards.dtype, "an advantage"),
        narrowed(returns, rewards.dtype, "a return"),
    )


def _constants(rewards: Tensor, values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards and values in one wide dtype, zero where nothing counts."""
    reward = token_values("rewards", rewards, counted, constant=True)
    value = token_values("values", values, counted, constant=True)
    dtype = wide_dtype(reward, value)
    return reward.to(dtype), value.to(dtype)
