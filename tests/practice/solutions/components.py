"""Right solutions on components, each written in another way than the code by hand."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def rope_complex(x: Tensor, positions: Tensor, base: float) -> Tensor:
    half = x.shape[-1] // 2
    frequencies = base ** (-torch.arange(half, dtype=x.dtype) / half)
    turns = torch.polar(torch.ones(()).to(x.dtype), torch.outer(positions.to(x.dtype), frequencies))
    turned = torch.complex(x[..., :half], x[..., half:]) * turns
    return torch.cat([turned.real, turned.imag], -1)


def rope_rotate_half(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """As in transformers: in float32 at least, tables side by side."""
    inv_freq = 1.0 / (base ** (torch.arange(0, x.shape[-1], 2).to(x.dtype) / x.shape[-1]))
    angles = torch.einsum("t,f->tf", positions.to(x.dtype), inv_freq)
    table = torch.cat((angles, angles), dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * table.cos() + torch.cat((-second, first), dim=-1) * table.sin()


def rope_single(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """As in most libraries, with angles in float32 whatever x is."""
    inv_freq = 1.0 / base ** (torch.arange(0, x.shape[-1], 2).float() / x.shape[-1])
    angles = positions.float()[:, None] * inv_freq
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    return x * cos + torch.cat(x.neg().chunk(2, -1)[::-1], -1).mul(sin) * torch.tensor(
        [1.0, -1.0]
    ).repeat_interleave(x.shape[-1] // 2)


def rope_default_precision(x: Tensor, positions: Tensor, base: float) -> Tensor:
    half = x.shape[-1] // 2
    angles = positions[:, None] / base ** (torch.arange(half) / half)
    u, v = x.split(half, -1)
    return torch.cat([u * angles.cos() - v * angles.sin(), v * angles.cos() + u * angles.sin()], -1)


def rope_loops(x: Tensor, positions: Tensor, base: float) -> Tensor:
    out, half = x.clone(), x.shape[-1] // 2
    for t, position in enumerate(positions.tolist()):
        for i in range(half):
            angle = position * base ** (-2 * i / x.shape[-1])
            u, v = x[..., t, i], x[..., t, i + half]
            out[..., t, i] = u * math.cos(angle) - v * math.sin(angle)
            out[..., t, i + half] = u * math.sin(angle) + v * math.cos(angle)
    return out


def rope_matrices(x: Tensor, positions: Tensor, base: float) -> np.ndarray:
    D, turned = x.shape[-1], []
    for t, m in enumerate(positions.numpy()):
        angles = m / base ** (np.arange(D // 2) * 2 / D)
        c, s = np.diag(np.cos(angles)), np.diag(np.sin(angles))
        turned.append(x[..., t, :].numpy() @ np.block([[c, -s], [s, c]]).T)
    return np.stack(turned, axis=-2)


def swiglu_torch(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    gate = functional.silu(functional.linear(x, w_gate))
    return functional.linear(gate * functional.linear(x, w_up), w_down)


def swiglu_fused(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    gate, up = torch.einsum("...d,fd->...f", x, torch.cat([w_gate, w_up])).chunk(2, -1)
    return torch.einsum("...f,df->...d", gate / (1 + torch.exp(-gate)) * up, w_down)


def swiglu_units(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """A sum over hidden units."""
    out = torch.zeros(*x.shape[:-1], w_down.shape[0], dtype=x.dtype)
    for g, u, d in zip(w_gate, w_up, w_down.T, strict=True):
        gate = (x * g).sum(-1)
        out += (gate * (1 + torch.tanh(gate / 2)) / 2 * (x * u).sum(-1))[..., None] * d
    return out


def swiglu_numpy(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> np.ndarray:
    gate, up = x.numpy() @ w_gate.numpy().T, x.numpy() @ w_up.numpy().T
    return (gate / (1 + np.exp(-gate)) * up) @ w_down.numpy().T


def linear_autograd(grad: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    leaves = [it.clone().requires_grad_() for it in (x, w, torch.zeros_like(w[:, 0]))]
    return torch.autograd.grad(functional.linear(*leaves), leaves, grad)


def linear_einsum(grad: Tensor, x: Tensor, w: Tensor) -> list[Tensor]:
    g, rows = grad.reshape(-1, w.shape[0]), x.reshape(-1, w.shape[1])
    grad_x = torch.einsum("...o,oi->...i", grad, w)
    return [grad_x, torch.einsum("no,ni->oi", g, rows), torch.einsum("no->o", g)]


def linear_loops(grad: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_w, grad_bias = torch.empty_like(x), torch.zeros_like(w), torch.zeros_like(w[:, 0])
    for place in np.ndindex(*x.shape[:-1]):
        grad_x[place] = w.T @ grad[place]
        grad_w += torch.outer(grad[place], x[place])
        grad_bias += grad[place]
    return grad_x, grad_w, grad_bias


def linear_numpy(grad: Tensor, x: Tensor, w: Tensor) -> tuple[np.ndarray, ...]:
    g, rows = grad.numpy().reshape(-1, w.shape[0]), x.numpy().reshape(-1, w.shape[1])
    return (g @ w.numpy()).reshape(x.shape), (rows.T @ g).T, g.sum(axis=0)


def lora_by_merging(x: Tensor, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return functional.linear(x, w + alpha / b.shape[1] * (b @ a))


def lora_torch(x: Tensor, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    code = functional.linear(x, a) * alpha
    return functional.linear(x, w).add_(functional.linear(code, b) / len(a))


def lora_numpy(x: Tensor, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> np.ndarray:
    x_, w_, a_, b_ = (it.numpy() for it in (x, w, a, b))
    return (
        np.einsum("oi,...i->...o", w_, x_)
        + np.einsum("or,ri,...i->...o", b_, a_, x_) * alpha / a_.shape[0]
    )


def lora_components(x: Tensor, w: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """One adapter of rank 1 after the other."""
    out = x @ w.T
    for row, column in zip(a, b.T, strict=True):
        out = out + (x @ row)[..., None] * column * (alpha / len(a))
    return out


def merge_addmm(w: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return torch.addmm(w, b, a, alpha=alpha / a.size(0))


def merge_outer(w: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    merged = w.clone()
    for row, column in zip(a, b.T, strict=True):
        merged += alpha / len(a) * torch.outer(column, row)
    return merged


def merge_by_layer(w: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The layer's output for each unit vector is a column of the merged weight."""
    return lora_torch(torch.eye(w.shape[1], dtype=w.dtype), w, a, b, alpha).T


def merge_numpy(w: Tensor, a: Tensor, b: Tensor, alpha: float) -> np.ndarray:
    return w.numpy() + (alpha / a.shape[0]) * np.dot(b.numpy(), a.numpy())


SOLUTIONS = {
    "rope": [
        rope_complex,
        rope_rotate_half,
        rope_single,
        rope_default_precision,
        rope_loops,
        rope_matrices,
    ],
    "swiglu": [swiglu_torch, swiglu_fused, swiglu_units, swiglu_numpy],
    "linear_backward": [linear_autograd, linear_einsum, linear_loops, linear_numpy],
    "lora": [lora_by_merging, lora_torch, lora_numpy, lora_components],
    "lora_merge": [merge_addmm, merge_outer, merge_by_layer, merge_numpy],
}
