"""Adam, Adam with L2 and AdamW against torch.optim, step by step: weights and both moments."""

from typing import Any

import pytest
import torch

from llmref.training.adam import adam_l2_step, adam_step, adamw_step
from tests.tensors import random

TOPIC = "training/adam"
OPTIONS: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-4}
KERNELS = [{"foreach": False}, {"foreach": True}, {"fused": True}]


def gradients(steps: int) -> torch.Tensor:
    """Of sizes from 1e-6 to 10, one weight without any."""
    sizes = torch.logspace(-6, 1, 7, dtype=torch.float64)
    return torch.cat([random(steps, 7) * sizes, torch.zeros(steps, 1)], 1)


def ours(step_of: Any, start: torch.Tensor, grads: torch.Tensor, **options: Any) -> torch.Tensor:
    """Weights and moments after each step: (steps, 3, weights)."""
    state = start, torch.zeros_like(start), torch.zeros_like(start)
    found = []
    for step, grad in enumerate(grads, start=1):
        state = step_of(state[0], grad, *state[1:], step=step, **OPTIONS, **options)
        found.append(torch.stack(tuple(state)))
    return torch.stack(found)


def theirs(optimiser: Any, start: torch.Tensor, grads: torch.Tensor, **options: Any) -> Any:
    weight = torch.nn.Parameter(start.clone())
    optimiser = optimiser([weight], **OPTIONS, **options)
    found = []
    for grad in grads:
        weight.grad = grad.clone()
        optimiser.step()
        state = optimiser.state[weight]
        found.append(torch.stack([weight.detach(), state["exp_avg"], state["exp_avg_sq"]]).clone())
    return torch.stack(found)


@pytest.mark.parametrize("kernel", KERNELS)
def test_adam_equals_torch(agreement, kernel):
    start, grads = random(8, seed=1), gradients(50)
    agreement(
        "adam_step, 50 steps",
        "torch",
        ours(adam_step, start, grads),
        theirs(torch.optim.Adam, start, grads, **kernel),
        atol=1e-12,
        convention="optim.Adam; plain, foreach and fused",
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_l2_equals_torch(agreement, kernel):
    start, grads = random(8, seed=1), gradients(50)
    agreement(
        "adam_l2_step, 50 steps",
        "torch",
        ours(adam_l2_step, start, grads, weight_decay=0.3),
        theirs(torch.optim.Adam, start, grads, weight_decay=0.3, **kernel),
        atol=1e-12,
        convention="optim.Adam(weight_decay=); plain, foreach and fused",
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_adamw_equals_torch(agreement, kernel):
    start, grads = random(8, seed=1), gradients(50)
    agreement(
        "adamw_step, 50 steps",
        "torch",
        ours(adamw_step, start, grads, weight_decay=0.3),
        theirs(torch.optim.AdamW, start, grads, weight_decay=0.3, **kernel),
        atol=1e-12,
        convention="optim.AdamW; plain, foreach and fused; the decay is multiplied by lr",
    )


def test_the_option_of_adam_is_adamw(agreement):
    start, grads = random(8, seed=1), gradients(50)
    options = {"weight_decay": 0.3, "decoupled_weight_decay": True}
    agreement(
        "adamw_step, 50 steps, by Adam",
        "torch",
        ours(adamw_step, start, grads, weight_decay=0.3),
        theirs(torch.optim.Adam, start, grads, **options),
        atol=1e-12,
        convention="optim.Adam(decoupled_weight_decay=True)",
    )


def test_bfloat16_weights_and_moments(agreement):
    """Both compute in float32 and round once; sums of two products may be fused differently."""
    start, grads = random(8, seed=1).bfloat16(), gradients(50).bfloat16()
    agreement(
        "adamw_step, 50 steps in bfloat16",
        "torch",
        ours(adamw_step, start, grads, weight_decay=0.3),
        theirs(torch.optim.AdamW, start, grads, weight_decay=0.3, fused=True),
        atol=2**-6,
        convention="fused=True: computed in float32, stored in bfloat16",
    )
