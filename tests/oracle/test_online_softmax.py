"""Flash attention and the log-sum-exp of its rows against the kernels of torch."""

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from llmref.attention.masks import causal_mask
from llmref.attention.online_softmax import (
    flash_attention,
    flash_attention_backward,
    merge_outputs,
    online_logsumexp,
)

TOPIC = "attention/online_softmax"
B, H, T, S, D = 2, 3, 5, 7, 4
INF = math.inf


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, n, D, dtype=torch.float64, generator=generator) for n in (T, S, S)]


def mask_with_an_empty_row():
    mask = torch.rand(B, 1, T, S, generator=torch.Generator().manual_seed(2)) < 0.7
    mask[..., 0] = True
    mask[:, :, 1] = False
    return mask


def kernel(query, key, value, mask=None, is_causal=False):
    """The CPU flash kernel of torch: (output, lse). It adds the mask."""
    additive = None
    if mask is not None:
        additive = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -INF)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=additive
    )


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("kind", ["no mask", "mask with an empty row", "causal, last aligned"])
def test_output_and_gradients_equal_torch(agreement, kind, backend):
    leaves = [x.requires_grad_() for x in inputs()]
    masks = {"mask with an empty row": mask_with_an_empty_row(), "no mask": None}
    mask = masks.get(kind, causal_mask(T, S))
    with sdpa_kernel(backend):
        theirs = F.scaled_dot_product_attention(*leaves, attn_mask=mask, scale=0.7)
        grad = torch.linspace(-1, 1, theirs.numel(), dtype=torch.float64).reshape(theirs.shape)
        their_gradients = torch.autograd.grad(theirs, leaves, grad)
    options = {"scale": 0.7, "block_q": 2, "block_k": 3, "is_causal": kind.startswith("causal")}
    given = None if options["is_causal"] else mask
    ours, lse = flash_attention(*leaves, given, return_lse=True, **options)
    convention = "tiles of 2 by 3; True may attend"
    agreement(f"flash_attention, {kind}", "torch", ours, theirs, atol=1e-12, convention=convention)
    gradients = flash_attention_backward(grad, *leaves, ours, lse, given, **options)
    for a, b in zip(gradients, their_gradients, strict=True):
        formula = f"flash_attention_backward, {kind}"
        agreement(formula, "torch", a, b, atol=1e-12, convention=convention)


def test_the_lse_is_that_of_the_cpu_flash_kernel(agreement):
    query, key, value = inputs()
    theirs = kernel(query, key, value)[1]
    ours = flash_attention(query, key, value, block_q=2, block_k=3, return_lse=True)[1]
    convention = "_scaled_dot_product_flash_attention_for_cpu, natural logarithm"
    agreement("lse of a row", "torch", ours, theirs, atol=1e-12, convention=convention)


def test_the_cpu_flash_kernel_gives_lse_0_for_an_empty_row(agreement):
    """Merged as it is, that part would get weight."""
    query, key, value = inputs()
    mask = mask_with_an_empty_row()
    _, theirs = kernel(query, key, value, mask)
    assert (theirs[:, :, 1] == 0).all()
    _, ours = flash_attention(query, key, value, mask, return_lse=True)
    assert (ours[:, :, 1] == -INF).all()
    convention = "rows with a key; an empty row has lse 0 in torch, -inf here"
    rows = [0, 2, 3, 4]
    formula = "lse of a row, with a mask"
    ours, theirs = ours[:, :, rows], theirs[:, :, rows]
    agreement(formula, "torch", ours, theirs, atol=1e-12, convention=convention)


def test_parts_from_the_cpu_flash_kernel_merge_to_the_whole(agreement):
    query, key, value = inputs()
    parts = [kernel(query, key[:, :, p], value[:, :, p]) for p in (slice(0, 3), slice(3, S))]
    ours, lse = merge_outputs(*parts[0], *parts[1])
    theirs, their_lse = kernel(query, key, value)
    convention = "two calls of the kernel on 3 and 4 keys, merged; one call on all"
    agreement("merge_outputs", "torch", ours, theirs, atol=1e-12, convention=convention)
    agreement("merge_outputs, lse", "torch", lse, their_lse, atol=1e-12, convention=convention)


def test_an_empty_part_of_the_cpu_flash_kernel_must_be_marked_first():
    """Row 1 may attend to no key of the first part: with its lse 0 the merge is wrong."""
    query, key, value = inputs()
    mask = torch.ones(B, 1, T, 3, dtype=torch.bool)
    mask[:, :, 1] = False
    first, second = (
        kernel(query, key[:, :, :3], value[:, :, :3], mask),
        kernel(query, key[:, :, 3:], value[:, :, 3:]),
    )
    raw, _ = merge_outputs(*first, *second)
    assert (raw[:, :, 1] - second[0][:, :, 1]).abs().max() > 0.1
    marked = first[1].masked_fill(~mask.any(-1), -INF)
    out, _ = merge_outputs(first[0], marked, *second)
    torch.testing.assert_close(out[:, :, 1], second[0][:, :, 1], atol=0, rtol=0)


def test_lse_of_flex_attention_is_minus_infinity_for_an_empty_row(agreement):
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

    query, key, value = (x.float() for x in inputs())
    mask = mask_with_an_empty_row()
    block_mask = create_block_mask(
        lambda b, h, i, j: mask[b, 0, i, j], B, None, T, S, device="cpu", BLOCK_SIZE=8
    )
    # It warns of running without torch.compile, but only once in a process.
    theirs, aux = flex_attention(
        query, key, value, block_mask=block_mask, return_aux=AuxRequest(lse=True)
    )
    ours, lse = flash_attention(query, key, value, mask, return_lse=True)
    convention = "flex_attention in float32, natural logarithm, -inf for an empty row"
    assert (aux.lse[:, :, 1] == -INF).all()
    agreement("lse of flex_attention", "torch", lse, aux.lse, atol=1e-6, convention=convention)
    agreement("flash_attention, flex", "torch", ours, theirs, atol=1e-6, convention=convention)


def test_online_logsumexp_equals_torch(agreement):
    x = 30 * inputs()[0]
    x[0, 0, 0, :2], x[0, 0, 1] = -INF, -INF
    ours, theirs = online_logsumexp(x), torch.logsumexp(x, -1)
    convention = "all -inf gives -inf"
    agreement("online_logsumexp", "torch", ours, theirs, atol=1e-12, convention=convention)
