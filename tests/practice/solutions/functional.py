"""Right solutions on functions, each written in another way than the code by hand."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def softmax_loops(x: Tensor) -> Tensor:
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        largest = max(row.tolist())
        weights = [math.exp(entry - largest) for entry in row.tolist()]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=x.dtype).reshape(x.shape)


def softmax_numpy(x: Tensor) -> np.ndarray:
    weights = np.exp(x.numpy() - x.numpy().max(-1, keepdims=True))
    return weights / np.einsum("...i->...", weights)[..., None]


def softmax_by_logarithm(x: Tensor) -> Tensor:
    return (x - torch.logsumexp(x, dim=-1, keepdim=True)).exp()


def gelu_by_erf(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def gelu_numbers(x: Tensor) -> Tensor:
    values = [it * 0.5 * math.erfc(-it / math.sqrt(2)) for it in x.flatten().tolist()]
    return torch.tensor(values, dtype=x.dtype).reshape(x.shape)


def silu_quotient(x: Tensor) -> Tensor:
    return torch.where(
        x > 0, x / (1 + torch.exp(-x.abs())), x * torch.exp(-x.abs()) / (1 + torch.exp(-x.abs()))
    )


def silu_tanh(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh(x / 2)) / 2


SOLUTIONS = {
    "softmax": [softmax_loops, softmax_numpy, softmax_by_logarithm],
    "gelu": [gelu_by_erf, gelu_numbers, functional.gelu],
    "silu": [silu_quotient, silu_tanh, functional.silu],
}


def cross_entropy_torch(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    flat = logits.reshape(-1, logits.shape[-1])
    return functional.cross_entropy(flat, targets.flatten(), ignore_index=ignore_index)


def cross_entropy_loops(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    losses = []
    for row, target in zip(
        logits.reshape(-1, logits.shape[-1]), targets.flatten().tolist(), strict=True
    ):
        if target != ignore_index:
            values = row.tolist()
            top = max(values)
            total = sum(math.exp(it - top) for it in values)
            losses.append(top + math.log(total) - values[target])
    return torch.tensor(sum(losses) / len(losses), dtype=logits.dtype)


def cross_entropy_where(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    counted = targets != ignore_index
    chosen = logits.gather(-1, targets.where(counted, 0).unsqueeze(-1)).squeeze(-1)
    loss = torch.where(counted, logits.logsumexp(-1) - chosen, 0.0)
    return loss.sum() / counted.sum()


def cross_entropy_numpy(logits: Tensor, targets: Tensor, ignore_index: int) -> np.ndarray:
    z, y = logits.numpy(), targets.numpy()
    keep = y != ignore_index
    z, y = z[keep], y[keep]
    z = z - z.max(-1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(-1)) - z[np.arange(len(y)), y])


def cross_entropy_backward_autograd(logits: Tensor, targets: Tensor) -> Tensor:
    z = logits.clone().requires_grad_()
    functional.cross_entropy(z.reshape(-1, z.shape[-1]), targets.flatten()).backward()
    assert z.grad is not None
    return z.grad


def cross_entropy_backward_loops(logits: Tensor, targets: Tensor) -> Tensor:
    flat = softmax_loops(logits).reshape(-1, logits.shape[-1])
    for row, target in zip(flat, targets.flatten(), strict=True):
        row[target] -= 1
    return (flat / len(flat)).reshape(logits.shape)


def cross_entropy_backward_numpy(logits: Tensor, targets: Tensor) -> np.ndarray:
    z = logits.numpy()
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return (p - np.eye(z.shape[-1])[targets.numpy()]) / targets.numel()


def info_nce_torch(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    scores = functional.cosine_similarity(a[:, None], b[None], dim=-1) / temperature
    return functional.cross_entropy(scores, torch.arange(len(a)))


def info_nce_loops(a: Tensor, b: Tensor, temperature: float) -> float:
    total = 0.0
    for i, query in enumerate(a.tolist()):
        scores = []
        for key in b.tolist():
            product = sum(x * y for x, y in zip(query, key, strict=True))
            scores.append(product / math.hypot(*query) / math.hypot(*key) / temperature)
        top = max(scores)
        total += top + math.log(sum(math.exp(it - top) for it in scores)) - scores[i]
    return total / len(a)


def info_nce_einsum(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    scores = torch.einsum("id,jd->ij", functional.normalize(a), functional.normalize(b))
    scores = scores * (1 / temperature)
    gaps = scores - torch.diag(scores)[:, None]
    return torch.logsumexp(gaps, dim=1).sum() / len(a)


SOLUTIONS |= {
    "cross_entropy": [
        cross_entropy_torch,
        cross_entropy_loops,
        cross_entropy_where,
        cross_entropy_numpy,
    ],
    "cross_entropy_backward": [
        cross_entropy_backward_autograd,
        cross_entropy_backward_loops,
        cross_entropy_backward_numpy,
    ],
    "info_nce": [info_nce_torch, info_nce_loops, info_nce_einsum],
}


def quantize_numpy(x: Tensor, bits: int) -> tuple[np.ndarray, float]:
    top = 2 ** (bits - 1) - 1
    largest = float(np.abs(x.numpy()).max())
    scale = largest / top if largest else 1.0
    return np.rint(x.numpy() / scale).astype(np.int32), scale


def quantize_numbers(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    top = 2 ** (bits - 1) - 1
    scale = max(abs(it) for it in x.flatten().tolist()) / top or 1.0
    codes = [round(it / scale) for it in x.flatten().tolist()]
    return torch.tensor(codes).reshape(x.shape), torch.tensor([scale])[0]


def quantize_by_inverse(x: Tensor, bits: int) -> list[Tensor]:
    top = (1 << (bits - 1)) - 1
    largest = max(x.max(), -x.min())
    if largest == 0:
        return [torch.zeros_like(x, dtype=torch.int8), torch.ones(())]
    return [torch.round(x * (top / largest)).clamp(-top, top).to(torch.int16), largest / top]


def dequantize_numpy(codes: Tensor, scale: Tensor) -> np.ndarray:
    return codes.numpy().astype(np.float64) * scale.item()


def dequantize_loops(codes: Tensor, scale: Tensor) -> list[list[float]] | list[float]:
    if codes.ndim > 1:
        return [[float(scale) * code for code in row] for row in codes.tolist()]
    return [float(scale) * code for code in codes.tolist()]


def dequantize_cast(codes: Tensor, scale: Tensor) -> Tensor:
    return torch.mul(codes.to(scale.dtype), scale)


SOLUTIONS |= {
    "quantize_symmetric": [quantize_numpy, quantize_numbers, quantize_by_inverse],
    "dequantize": [dequantize_numpy, dequantize_loops, dequantize_cast],
}


def sft_torch(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    labels = torch.where(mask, tokens, -100)[:, 1:].flatten()
    return functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels)


def sft_loops(logits: Tensor, tokens: Tensor, mask: Tensor) -> float:
    losses = []
    for i, row in enumerate(tokens.tolist()):
        for t in range(1, len(row)):
            if mask[i, t]:
                z = logits[i, t - 1].tolist()
                total = sum(math.exp(it - max(z)) for it in z)
                losses.append(max(z) + math.log(total) - z[row[t]])
    return sum(losses) / len(losses)


def sft_where(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1).roll(1, dims=1)
    chosen = log_p.gather(2, tokens[..., None])[..., 0]
    counted = mask.clone()
    counted[:, 0] = False
    return torch.where(counted, -chosen, 0.0).sum() / counted.sum()


def top_k_topk(logits: Tensor, k: int) -> Tensor:
    values, places = logits.topk(min(k, logits.shape[-1]), dim=-1)
    return torch.full_like(logits, -torch.inf).scatter(-1, places, values)


def top_k_loops(logits: Tensor, k: int) -> Tensor:
    out = torch.full_like(logits, float("-inf"))
    for index, row in enumerate(logits.reshape(-1, logits.shape[-1]).tolist()):
        for place in sorted(range(len(row)), key=lambda it: -row[it])[:k]:
            out.view(-1, len(row))[index, place] = row[place]
    return out


def top_k_numpy(logits: Tensor, k: int) -> np.ndarray:
    ranks = np.argsort(np.argsort(-logits.numpy(), axis=-1, kind="stable"), axis=-1)
    return np.where(ranks < k, logits.numpy(), -np.inf)


def top_p_loops(logits: Tensor, p: float) -> Tensor:
    out = torch.full_like(logits, float("-inf"))
    for index, row in enumerate(logits.softmax(-1).reshape(-1, logits.shape[-1]).tolist()):
        mass = 0.0
        for place in sorted(range(len(row)), key=lambda it: -row[it]):
            if mass < p:
                flat = index * len(row) + place
                out.view(-1)[flat] = logits.flatten()[flat]
            mass += row[place]
    return out


def top_p_transformed(logits: Tensor, p: float) -> Tensor:
    values, order = logits.sort(dim=-1, descending=True)
    over = values.softmax(-1).cumsum(-1) >= p
    over = torch.cat([torch.zeros_like(over[..., :1]), over[..., :-1]], dim=-1)
    return values.masked_fill(over, -torch.inf).gather(-1, order.argsort(-1))


def top_p_numpy(logits: Tensor, p: float) -> np.ndarray:
    z = logits.numpy()
    probs = np.exp(z - z.max(-1, keepdims=True))
    probs = probs / probs.sum(-1, keepdims=True)
    order = np.argsort(-probs, axis=-1, kind="stable")
    mass = np.cumsum(np.take_along_axis(probs, order, -1), axis=-1)
    mass = np.concatenate([np.zeros_like(mass[..., :1]), mass[..., :-1]], axis=-1)
    out = np.full_like(z, -np.inf)
    kept = np.where(mass < p, np.take_along_axis(z, order, -1), -np.inf)
    np.put_along_axis(out, order, kept, -1)
    return out


def min_p_probabilities(logits: Tensor, p: float) -> Tensor:
    probs = logits.softmax(-1)
    return torch.where(probs >= p * probs.max(-1, keepdim=True).values, logits, -torch.inf)


def min_p_numpy(logits: Tensor, p: float) -> np.ndarray:
    z = logits.numpy().copy()
    z[np.exp(z - z.max(-1, keepdims=True)) < p] = -np.inf
    return z


def min_p_loops(logits: Tensor, p: float) -> Tensor:
    out = [
        [it if math.exp(it - max(row)) >= p else -math.inf for it in row]
        for row in logits.reshape(-1, logits.shape[-1]).tolist()
    ]
    return torch.tensor(out, dtype=logits.dtype).reshape(logits.shape)


SOLUTIONS |= {
    "sft_loss": [sft_torch, sft_loops, sft_where],
    "top_k": [top_k_topk, top_k_loops, top_k_numpy],
    "top_p": [top_p_loops, top_p_transformed, top_p_numpy],
    "min_p": [min_p_probabilities, min_p_numpy, min_p_loops],
}
