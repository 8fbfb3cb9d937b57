"""Schedules against those of transformers, torch and torchtune, to the last step and beyond."""

import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch

from llmref.training.schedule import warmup_cosine, warmup_stable_decay

TOPIC = "training/schedule"
PEAK, STEPS = 3e-4, 100


def rates_of(make, steps=STEPS + 1):
    """The rates of the first updates under a scheduler, as a training loop meets them."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return torch.tensor(found, dtype=torch.float64)


def cosine(steps=STEPS + 1, min_lr=0.0, warmup=10, total=STEPS):
    return torch.tensor(
        [
            warmup_cosine(t, max_lr=PEAK, min_lr=min_lr, warmup_steps=warmup, total_steps=total)
            for t in range(steps)
        ],
        dtype=torch.float64,
    )


def test_cosine_equals_transformers(agreement):
    from transformers import get_cosine_schedule_with_warmup

    theirs = rates_of(lambda it: get_cosine_schedule_with_warmup(it, 10, STEPS))
    agreement("warmup_cosine, floor 0", "transformers", cosine(), theirs, atol=1e-12)


def test_cosine_with_a_floor_equals_transformers(agreement):
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    theirs = rates_of(
        lambda it: get_cosine_with_min_lr_schedule_with_warmup(it, 10, STEPS, min_lr_rate=0.1)
    )
    agreement(
        "warmup_cosine, floor 0.1 of the peak",
        "transformers",
        cosine(min_lr=0.1 * PEAK),
        theirs,
        atol=1e-12,
        convention="min_lr_rate is a fraction of the peak",
    )


@pytest.mark.parametrize("decay", ["linear", "cosine", "1-sqrt"])
def test_wsd_equals_transformers(agreement, decay):
    from transformers import get_wsd_schedule

    theirs = rates_of(
        lambda it: get_wsd_schedule(
            it, num_warmup_steps=10, num_decay_steps=30, num_stable_steps=60, decay_type=decay
        ),
        steps=STEPS + 40,
    )
    ours = [
        warmup_stable_decay(
            t, max_lr=PEAK, warmup_steps=10, stable_steps=60, decay_steps=30, decay=decay
        )
        for t in range(STEPS + 40)
    ]
    agreement(
        "warmup_stable_decay, all shapes, past the end too",
        "transformers",
        torch.tensor(ours, dtype=torch.float64),
        theirs,
        atol=1e-12,
    )


def test_wsd_of_transformers_warms_up_from_its_floor(agreement):
    from transformers import get_wsd_schedule

    theirs = rates_of(
        lambda it: get_wsd_schedule(
            it,
            num_warmup_steps=10,
            num_decay_steps=30,
            num_stable_steps=60,
            min_lr_ratio=0.1,
            decay_type="linear",
        ),
        steps=STEPS + 40,
    )
    assert theirs[0] == pytest.approx(0.1 * PEAK)
    assert theirs[1] == pytest.approx((0.1 + 0.9 * 0.1) * PEAK)
    ours = [
        warmup_stable_decay(
            t,
            max_lr=PEAK,
            min_lr=0.1 * PEAK,
            warmup_steps=10,
            stable_steps=60,
            decay_steps=30,
            decay="linear",
        )
        for t in range(10, STEPS + 40)
    ]
    agreement(
        "warmup_stable_decay with a floor, after the warm-up",
        "transformers",
        torch.tensor(ours, dtype=torch.float64),
        theirs[10:],
        atol=1e-12,
        convention="get_wsd_schedule warms up from min_lr_ratio, ours from 0",
    )


def test_cosine_equals_torch(agreement):
    theirs = rates_of(
        lambda it: torch.optim.lr_scheduler.CosineAnnealingLR(it, STEPS, eta_min=0.1 * PEAK)
    )
    agreement(
        "warmup_cosine without warm-up",
        "torch",
        cosine(min_lr=0.1 * PEAK, warmup=0),
        theirs,
        atol=1e-12,
        convention="CosineAnnealingLR, computed from the rate before",
    )


@pytest.fixture
def torchtune_schedulers(torchtune_imports, monkeypatch):
    """The file of torchtune's schedulers alone: its package needs another torchao."""
    memory = types.ModuleType("torchtune.training.memory")
    memory.OptimizerInBackwardWrapper = type("OptimizerInBackwardWrapper", (), {})
    monkeypatch.setitem(sys.modules, "torchtune.training", types.ModuleType("torchtune.training"))
    monkeypatch.setitem(sys.modules, "torchtune.training.memory", memory)
    folder = importlib.util.find_spec("torchtune").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location(
        "torchtune_schedulers", Path(folder) / "training" / "lr_schedulers.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cosine_equals_torchtune(agreement, torchtune_schedulers):
    make = torchtune_schedulers.get_cosine_schedule_with_warmup
    theirs = rates_of(lambda it: make(it, 10, STEPS), steps=2 * STEPS)
    agreement("warmup_cosine, floor 0", "torchtune", cosine(), theirs[: STEPS + 1], atol=1e-12)
    assert theirs[190] == pytest.approx(PEAK)  # 90 steps past the end it is at its highest again


def test_past_the_end_transformers_and_torch_rise_again():
    """A cosine of 90 steps after 10 of warm-up is at its highest again 90 steps past the end."""
    from transformers import (
        get_cosine_schedule_with_warmup,
        get_cosine_with_min_lr_schedule_with_warmup,
    )

    for make, top in (
        (lambda it: get_cosine_schedule_with_warmup(it, 10, STEPS), 190),
        (
            lambda it: get_cosine_with_min_lr_schedule_with_warmup(it, 10, STEPS, min_lr_rate=0.1),
            190,
        ),
        (lambda it: torch.optim.lr_scheduler.CosineAnnealingLR(it, STEPS), 200),
    ):
        theirs = rates_of(make, steps=top + 1)
        assert theirs[STEPS] < 0.11 * PEAK
        assert theirs[top] == pytest.approx(PEAK, rel=1e-6)
    assert cosine(191)[-1] == 0


def test_an_update_with_rate_zero_enters_the_moments():
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.0, betas=(0.9, 0.999), weight_decay=0.1)
    weight.sum().backward()
    optimizer.step()
    state = optimizer.state[weight]
    assert (weight.item(), state["step"].item()) == (1.0, 1.0)
    assert state["exp_avg"].item() == pytest.approx(0.1)
