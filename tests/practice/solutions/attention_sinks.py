"""Right solutions on sinks, each written in another way than the code by hand."""

import torch
from torch import Tensor
from torch.nn import functional


def by_a_column(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sink: Tensor) -> Tensor:
    scores = (q @ k.mT * k.shape[-1] ** -0.5).masked_fill(mask.logical_not(), -torch.inf)
    column = sink.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1] @ v


def by_a_key(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sink: Tensor) -> Tensor:
    """A feature more, in which only the sink's key has an entry."""
    B, H, T, D = q.shape
    z = sink.view(1, H, 1, 1).expand(B, H, 1, 1)
    q = torch.cat([q / D**0.5, q.new_ones(B, H, T, 1)], -1)
    k = torch.cat([functional.pad(k, (0, 1)), functional.pad(z, (D, 0))], -2)
    mask = functional.pad(mask, (0, 1), value=True)
    v = functional.pad(v, (0, 0, 0, 1))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


def by_gate(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sink: Tensor) -> Tensor:
    scores = (torch.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5).where(mask, -torch.inf)
    share = (scores.logsumexp(-1) - sink.unsqueeze(-1)).sigmoid().unsqueeze(-1)
    return share * (scores.softmax(-1).nan_to_num() @ v)


def gate_by_logaddexp(out: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    total = torch.logaddexp(lse, sink[:, None].expand_as(lse))
    return out * (lse - total).exp().unsqueeze(-1)


def gate_by_softmax(out: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    pair = torch.stack([lse, sink.view(1, -1, 1).expand_as(lse)], -1)
    return torch.einsum("bht,bhtd->bhtd", pair.softmax(-1)[..., 0], out)


def gate_by_one(out: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    share = 1 / (1 + torch.exp(sink.unsqueeze(1) - lse))
    return share[..., None] * out


def backward_by_autograd(grad: Tensor, out: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    with torch.enable_grad():
        z = sink.clone().requires_grad_()
        log_share = functional.logsigmoid(lse - z[:, None])
        plain = (grad * out).sum(-1)
        return torch.autograd.grad((plain * log_share.clamp(min=-1e4)).sum(), z)[0]


def backward_by_loop(grad: Tensor, out: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    found = []
    for h, z in enumerate(sink):
        share = 1 - 1 / (1 + torch.exp(z - lse[:, h]))
        found.append(-(share[..., None] * grad[:, h] * out[:, h]).sum())
    return torch.stack(found)


def backward_by_einsum(grad: Tensor, out: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    return torch.einsum("bht,bhtd,bhtd->h", (lse - sink[:, None]).neg().sigmoid(), grad, -out)


SOLUTIONS = {
    "sink_attention": [by_a_column, by_a_key, by_gate],
    "apply_sink": [gate_by_logaddexp, gate_by_softmax, gate_by_one],
    "sink_backward": [backward_by_autograd, backward_by_loop, backward_by_einsum],
}
