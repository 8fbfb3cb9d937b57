"""Exercise on generalised advantage estimation."""

from typing import Any

import torch
from torch import Tensor

from llmref.practice.exercise import Convention, Exercise, Function, Law, Mistake, apart
from llmref.practice.exercises._inputs import number, rows, table


def _episodes() -> list[tuple[Any, ...]]:
    return [
        (table([3.0], [1.0]), table([1.0], [4.0]), 0.5, 0.5),
        (number(1.0, 2.0), number(4.0, 8.0), 0.5, 0.0),
        (number(1.0, 2.0), number(4.0, 8.0), 0.5, 0.25),
        (number(0.0, 0.0, 1.0), number(0.5, 0.25, 0.75), 1.0, 1.0),
        (table([1.0, 0.0, 2.0], [0.0, -1.0, 3.0]), table([2.0, 1.0, 4.0], [1, 3, 0]), 0.9, 1.0),
        (rows(2, 3, 5), rows(2, 3, 5, seed=1), 0.99, 0.95),
        (rows(6, 7, seed=2), rows(6, 7, seed=3), 1.0, 0.9),
    ]


def _no_trace(function: Function, r: Tensor, v: Tensor, gamma: float, lam: float) -> bool:
    after = torch.cat([v[..., 1:], torch.zeros_like(v[..., :1])], dim=-1)
    return apart(function(r, v, gamma, 0.0)[0], r + gamma * after - v)


def _full_trace(function: Function, r: Tensor, v: Tensor, gamma: float, lam: float) -> bool:
    T = r.shape[-1]
    gap = torch.arange(T)[:, None] - torch.arange(T)
    discount = torch.where(gap >= 0, gamma ** gap.clamp(min=0).double(), 0.0)
    return apart(function(r, v, gamma, 1.0)[0] + v, r @ discount)


def _targets(function: Function, r: Tensor, v: Tensor, gamma: float, lam: float) -> bool:
    advantages, targets = function(r, v, gamma, lam)
    return apart(targets - advantages, v)


def _terminal(function: Function, r: Tensor, v: Tensor, gamma: float, lam: float) -> bool:
    last = torch.zeros_like(r)
    last[..., -1] = 2.0
    return apart(function(last, v, 1.0, 1.0)[1], torch.full_like(r, 2.0))


_DELTA = "rewards[..., t] + gamma * next_value - values[..., t]"
_RUN = "delta + gamma * lam * running"

GAE = Exercise(
    name="gae",
    topic="rl/policy_gradient",
    level=2,
    task="From rewards and the critic's values, both (..., T), with the value 0 after the end, "
    "return two tensors: the advantages of GAE, not normalised, and the critic's targets.",
    inputs=_episodes,
    definition="pg-gae",
    laws=(
        Law("A target is advantage plus value.", "pg-lambda-return", _targets),
        Law(
            "With lambda = 0 an advantage is reward plus gamma times the next value minus the "
            "value.",
            "pg-gae-limits",
            _no_trace,
        ),
        Law(
            "With lambda = 1 advantage plus value is the discounted sum of rewards to come.",
            "pg-gae-limits",
            _full_trace,
        ),
        Law(
            "With one reward, at the end, and gamma = lambda = 1, it is the target everywhere.",
            "pg-llm-terminal",
            _terminal,
        ),
    ),
    mistakes=(
        Mistake(
            "the last value repeated after the end",
            "Nothing follows the last token: its value is 0, not that of the last state.",
            (
                (
                    "running, next_value = 0.0, 0.0",
                    "running, next_value = 0.0, values[..., -1]",
                ),
            ),
        ),
        Mistake(
            "lambda without gamma",
            "An error that lies one token ahead is discounted by both.",
            ((_RUN, "delta + lam * running"),),
        ),
        Mistake(
            "gamma without lambda",
            "That is lambda = 1, the return minus the value.",
            ((_RUN, "delta + gamma * running"),),
        ),
        Mistake(
            "the next value not discounted",
            "What comes one token later counts gamma times as much, its value too.",
            (("gamma * next_value", "next_value"),),
        ),
        Mistake(
            "the value not subtracted",
            "An advantage is what the critic did not expect.",
            ((_DELTA, "rewards[..., t] + gamma * next_value"),),
        ),
        Mistake(
            "targets without the values",
            "The critic is trained towards advantage plus value, not towards the advantage.",
            (("advantages, advantages + values", "advantages, advantages"),),
        ),
        Mistake(
            "targets before advantages",
            "The advantages come first.",
            (
                (
                    "return advantages, advantages + values",
                    "return advantages + values, advantages",
                ),
            ),
        ),
        Mistake(
            "advantages left in the order in which they were made",
            "They are made from the last to the first, so a list of them has to be turned round.",
            (
                (
                    "return advantages, advantages + values",
                    "return advantages.flip(-1), advantages.flip(-1) + values",
                ),
            ),
        ),
        Mistake(
            "targets over one token",
            "That is lambda = 0 for the critic; its target is advantage plus value.",
            (
                (
                    "return advantages, advantages + values",
                    "after = torch.cat([values[..., 1:], 0 * values[..., :1]], -1)\n"
                    "    return advantages, rewards + gamma * after",
                ),
            ),
        ),
        Mistake(
            "targets of lambda = 1",
            "That is the return without the critic; its target is advantage plus value.",
            (
                ("running, next_value = 0.0, 0.0", "running, next_value, after = 0.0, 0.0, 0.0"),
                (
                    "advantages[..., t], next_value = running, values[..., t]",
                    "after = rewards[..., t : t + 1] + gamma * after\n"
                    "        made = after if t == rewards.shape[-1] - 1 else "
                    "torch.cat([after, made], -1)\n"
                    "        advantages[..., t], next_value = running, values[..., t]",
                ),
                ("return advantages, advantages + values", "return advantages, made"),
            ),
        ),
        Mistake(
            "from the first token to the last",
            "The sum runs over what is still to come, so it is built from the end.",
            (("reversed(range(rewards.shape[-1]))", "range(rewards.shape[-1])"),),
        ),
    ),
    conventions=(
        Convention(
            "whitened advantages",
            "TRL's PPO whitens after the targets are taken. To match, leave the advantages "
            "as they are.",
            (
                (
                    "return advantages, advantages",
                    "return (advantages - advantages.mean()) "
                    "* torch.rsqrt(advantages.var() + 1e-8), advantages",
                ),
            ),
        ),
    ),
    hints=(
        "Begin with the error of the critic over one token.",
        "An advantage is that error plus a share of the advantage one token later.",
        "So go through the tokens from the last to the first.",
    ),
    branches={
        "one token": lambda r, v, gamma, lam: r.shape[-1] == 1,
        "lambda = 0": lambda r, v, gamma, lam: lam == 0,
        "lambda = 1": lambda r, v, gamma, lam: lam == 1,
        "several responses": lambda r, v, gamma, lam: r.ndim > 1,
    },
    fixed=("rewards", "values"),
)

EXERCISES = (GAE,)
