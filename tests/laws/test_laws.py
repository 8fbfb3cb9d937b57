"""What every public function keeps: arguments, layouts, dtypes, and the default dtype of others."""

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.laws.calls import CALLS, Call

nan = float("nan")
GROUPS = ("attention", "components", "functional", "inference", "norm", "rl", "training")
NAMES = [call.name for call in CALLS]
calls = pytest.mark.parametrize("call", CALLS, ids=NAMES)


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in arguments or in what a function returns."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (float, int)) and not isinstance(value, bool):
        yield torch.tensor(value, dtype=torch.float64)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict) or hasattr(value, "__dict__"):
        yield from tensors(list((value if isinstance(value, dict) else vars(value)).values()))


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(changed(item, change) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(changed(item, change) for item in value)
    if isinstance(value, dict):
        return {name: changed(item, change) for name, item in value.items()}
    return value


def run(call: Call, arguments: Any = None) -> list[Tensor]:
    """What a call gives; where it draws, it draws the same each time."""
    options = dict(call.options)
    if "generator" in inspect.signature(call.function).parameters:
        options["generator"] = torch.Generator().manual_seed(1)
    return list(tensors(call.function(*(arguments or call.arguments), **options)))


def same(found: list[Tensor], wanted: list[Tensor], rtol: float, atol: float = 0.0) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        if not other.is_floating_point():
            assert torch.equal(one, other)
            continue
        finite = other[other.isfinite()]
        size = float(finite.abs().max()) if finite.numel() else 0.0
        torch.testing.assert_close(one.double(), other.double(), rtol=rtol, atol=atol + rtol * size)


def test_every_function_that_takes_tensors_has_its_call() -> None:
    called = {call.function for call in CALLS}
    without = []
    for group in GROUPS:
        door = import_module(f"llmref.{group}")
        for name in dir(door):
            function = getattr(door, name)
            if not inspect.isfunction(function) or function in called:
                continue
            hints = [str(it.annotation) for it in inspect.signature(function).parameters.values()]
            if any(hint.startswith("Tensor") or "torch.Tensor" in hint for hint in hints):
                without.append(f"{group}.{name}")
    # Those that take a module or a function beside it are tested with their topics.
    assert without == [
        "attention.gauge_transform",
        "attention.generate_greedy",
        "components.load_peft_state_dict",
        "components.load_transformers",
        "inference.beam_search",
    ]


@calls
def test_arguments_are_left_as_they_were(call: Call) -> None:
    before = [tensor.clone() for tensor in tensors(call.arguments)]
    run(call)
    for one, other in zip(tensors(call.arguments), before, strict=True):
        assert torch.equal(one, other)


def turned(tensor: Tensor) -> Tensor:
    return tensor.mT.contiguous().mT if tensor.ndim > 1 else spread(tensor)


def spread(tensor: Tensor) -> Tensor:
    """Every second entry of twice as many."""
    return torch.stack([tensor, tensor], dim=-1).flatten(-2)[..., ::2] if tensor.ndim else tensor


def with_a_start(tensor: Tensor) -> Tensor:
    return torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape)


@pytest.mark.parametrize("layout", [turned, spread, with_a_start])
@calls
def test_the_layout_of_memory_does_not_matter(
    call: Call, layout: Callable[[Tensor], Tensor]
) -> None:
    same(run(call, changed(call.arguments, layout)), run(call), rtol=1e-12)


@calls
def test_an_expanded_tensor_is_what_it_shows(call: Call) -> None:
    """The first entry of the first axis of two or more, repeated without a copy."""

    def first(tensor: Tensor) -> Tensor:
        return tensor[:1].expand_as(tensor) if tensor.ndim > 1 else tensor

    expanded = changed(call.arguments, first)
    if call.name == "norm.rotate_residual":  # equal rows are no rotation
        with pytest.raises(ValueError, match="orthogonal"):
            run(call, expanded)
        return
    copied = changed(expanded, lambda tensor: tensor.clone(memory_format=torch.contiguous_format))
    same(run(call, expanded), run(call, copied), rtol=1e-12)


@pytest.mark.parametrize("default", [torch.float16, torch.float32])
@calls
def test_the_default_dtype_changes_nothing(call: Call, default: torch.dtype) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        wanted = run(call)
        torch.set_default_dtype(default)
        found = run(call)
    finally:
        torch.set_default_dtype(torch.float32)
    assert [it.dtype for it in found] == [it.dtype for it in wanted]
    same(found, wanted, rtol=0.0)


# Where 16 bits hold too little: the logarithm of a sum of exponentials, a rotation, frequencies,
# and, in float16, a mean of squares.
REFUSED_IN_16_BITS = {
    "attention.apply_sink",
    "attention.sink_backward",
    "attention.flash_attention_backward",
    "attention.merge_outputs",
    "components.rope_cos_sin",
    "components.rope_matrix",
    "components.update_expert_bias",
    "norm.rotate_residual",
    "training.adam_direction",
    "training.adam_l2_step",
    "training.adam_moments",
    "training.adam_step",
    "training.adamw_step",
}
BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 0.05, torch.float16: 0.01}


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("call", [it for it in CALLS if it.name != "functional.stochastic_round"])
def test_fewer_digits_give_nearly_the_same(call: Call, dtype: torch.dtype) -> None:
    """Compared with float64 on the same rounded arguments, relative to the largest entry.

    Rounded probabilities and rotations are none in float64: then on the arguments themselves.
    """
    rounded = changed(call.arguments, lambda x: x.to(dtype) if x.is_floating_point() else x)
    wide = changed(rounded, lambda x: x.double() if x.is_floating_point() else x)
    try:
        found = run(call, rounded)
    except ValueError:
        assert dtype != torch.float32
        assert call.name in REFUSED_IN_16_BITS
        return
    try:
        wanted = run(call, wide)
    except ValueError:
        wanted = run(call)
    same(found, wanted, rtol=BOUNDS[dtype])


# The logits before a token predict it, so a mask of tokens counts them one place earlier.
SHIFTED = {"functional.sequence_logprob", "functional.sft_loss", "functional.sft_token_losses"}


def with_nan_behind(call: Call) -> tuple[Any, ...] | None:
    """The arguments with a NaN wherever the mask says no; None if there is no mask of entries."""
    masks = [it for it in call.arguments if isinstance(it, Tensor) and it.dtype == torch.bool]
    if len(masks) != 1:
        return None
    hidden = ~masks[0]
    if call.name in SHIFTED:
        hidden = torch.cat([hidden[:, 1:], torch.ones_like(hidden[:, :1])], dim=1)

    def hide(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.shape[: hidden.ndim] != hidden.shape:
            return tensor
        return tensor.masked_fill(
            hidden.view(*hidden.shape, *[1] * (tensor.ndim - hidden.ndim)), nan
        )

    with_nan = changed(call.arguments, hide)
    any_nan = any(it.isnan().any() for it in tensors(with_nan) if it.is_floating_point())
    return with_nan if any_nan else None


MASKED = [call for call in CALLS if with_nan_behind(call) is not None]


def test_every_loss_over_tokens_has_a_mask() -> None:
    assert len(MASKED) >= 20


@pytest.mark.parametrize("call", MASKED, ids=[call.name for call in MASKED])
def test_a_nan_behind_a_mask_is_not_seen_and_has_no_gradient(call: Call) -> None:
    arguments = with_nan_behind(call)
    assert arguments is not None
    same(run(call, arguments), run(call), rtol=1e-12)
    leaf = next(it for it in arguments if is_float(it)).requires_grad_()  # the others are constants
    for value in run(call, arguments):
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            assert gradient.isfinite().all()


def is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
