"""Muon against torch.optim.Muon, step by step, as it is and with its cast to bfloat16 removed."""

from typing import Any

import pytest
import torch

from llmref.training.muon import CUBIC, JORDAN, muon_scale, muon_step, newton_schulz
from tests.tensors import random

TOPIC = "training/muon"
OPTIONS: dict[str, Any] = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
SHAPES = [(5, 9), (9, 5), (6, 6), (1, 7)]
RULES = ["original", "match_rms_adamw"]


@pytest.fixture
def without_the_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch casts a gradient with its method bfloat16, and then works on the copy in place."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())


def ours(start: torch.Tensor, grads: torch.Tensor, rule: str, **changes: Any) -> torch.Tensor:
    scale = muon_scale(tuple(start.shape), rule=rule)  # type: ignore[arg-type]
    given = {"steps": 5, "coefficients": JORDAN, "eps": 1e-7, **OPTIONS, **changes}
    state, found = (start, torch.zeros_like(start)), []
    for grad in grads:
        state = muon_step(state[0], grad, state[1], scale=scale, **given)
        found.append(state[0])
    return torch.stack(found)


def theirs(start: torch.Tensor, grads: torch.Tensor, rule: str, **changes: Any) -> torch.Tensor:
    weight = torch.nn.Parameter(start.clone())
    optimiser = torch.optim.Muon([weight], adjust_lr_fn=rule, **{**OPTIONS, **changes})
    found = []
    for grad in grads:
        weight.grad = grad.clone()
        optimiser.step()
        found.append(weight.detach().clone())
    return torch.stack(found)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_muon_equals_torch_without_the_cast(agreement, without_the_cast, shape, rule):
    start, grads = random(*shape, seed=1), random(20, *shape)
    agreement(
        f"muon_step, 20 steps, {rule}",
        "torch",
        ours(start, grads, rule),
        theirs(start, grads, rule),
        atol=1e-12,
        convention="optim.Muon, its cast to bfloat16 removed; momentum is a mean there",
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_other_coefficients_and_steps_equal_torch(agreement, without_the_cast, shape):
    start, grads = random(*shape, seed=1), random(20, *shape)
    agreement(
        "muon_step, 20 steps, three of the cubic",
        "torch",
        ours(start, grads, "original", steps=3, coefficients=CUBIC),
        theirs(start, grads, "original", ns_steps=3, ns_coefficients=CUBIC),
        atol=1e-12,
        convention="optim.Muon(ns_steps=, ns_coefficients=), its cast removed",
    )


def test_a_small_norm_counts_as_eps(agreement, without_the_cast):
    """A first gradient of the norm 3e-8 is multiplied by 1 - mu and 1 + mu: 2.9e-9 in torch."""
    start, grad = random(3, 4, seed=1), random(1, 3, 4)
    grad = 3e-8 * grad / grad.norm()
    agreement(
        "muon_step of a gradient below eps",
        "torch",
        ours(start, grad, "original", eps=1e-6),
        theirs(start, grad, "original", eps=(1 - 0.95) * 1e-6),
        atol=1e-12,
        convention="optim.Muon(eps=), 1 - mu times ours since its momentum is a mean",
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_muon_is_near_torch_as_it_is(agreement, shape, rule):
    start, grads = random(*shape, seed=1), random(5, *shape)
    agreement(
        f"muon_step, 5 steps, {rule}, with torch's bfloat16",
        "torch",
        ours(start, grads, rule),
        theirs(start, grads, rule),
        atol=2e-3,
        convention="optim.Muon as it is: the iteration in bfloat16; the rate is 0.02",
    )


def test_the_iteration_alone(agreement, without_the_cast):
    """A weight of 0 with the rate 1 and no momentum is moved by the iteration."""
    grad = random(6, 8)
    start = torch.zeros_like(grad)
    options = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}
    agreement(
        "newton_schulz, 5 steps",
        "torch",
        newton_schulz(grad, steps=5, coefficients=JORDAN, eps=1e-7),
        -theirs(start, grad[None], "original", **options)[0],
        atol=1e-12,
        convention="optim.Muon(momentum=0), its cast removed",
    )
