"""Clipping against torch, the token mean against transformers and against real ranks."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional

from llmref.training.gradient_accumulation import (
    clip_by_global_norm,
    clip_by_value,
    global_norm,
    token_mean_scale,
)
from tests.tensors import random

TOPIC = "training/gradient_accumulation"
SHAPES = [(3, 4), (5,), (2, 3)]


def gradients(scale):
    return [random(*shape, seed=k, scale=scale) for k, shape in enumerate(SHAPES)]


def parameters(grads):
    held = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for parameter, grad in zip(held, grads, strict=True):
        parameter.grad = grad.clone()
    return held


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_norm_and_clipping_equal_torch(agreement, scale):
    held = parameters(gradients(scale))
    norm = torch.nn.utils.clip_grad_norm_(held, 1.0)
    ours, our_norm = clip_by_global_norm(gradients(scale), max_norm=1.0)
    agreement("global_norm", "torch", our_norm, norm, atol=1e-12)
    agreement(
        "clip_by_global_norm",
        "torch",
        flat(ours),
        flat(p.grad for p in held),
        atol=1e-6,
        convention="torch divides by the norm plus 1e-6: the difference is at most that",
    )


def test_torch_shortens_just_below_the_limit_too():
    held = parameters([torch.tensor([0.9999995], dtype=torch.float64)])
    torch.nn.utils.clip_grad_norm_(held, 1.0)
    assert held[0].grad.item() == pytest.approx(0.9999995 / 1.0000005, abs=1e-12)
    held = parameters([torch.tensor([1e-6], dtype=torch.float64)])
    torch.nn.utils.clip_grad_norm_(held, 1e-6)
    assert held[0].grad.item() == pytest.approx(5e-7)


@pytest.mark.parametrize(("norm", "lost"), [(16.0, False), (32.0, True), (64.0, True)])
def test_in_float32_the_addend_is_lost_from_32_on(norm, lost):
    held = parameters([torch.tensor([norm])])
    torch.nn.utils.clip_grad_norm_(held, norm)
    assert (held[0].grad.item() == norm) is lost


def test_clipping_by_value_equals_torch(agreement):
    held = parameters(gradients(1.0))
    torch.nn.utils.clip_grad_value_(held, 0.3)
    ours = clip_by_value(gradients(1.0), max_value=0.3)
    agreement("clip_by_value", "torch", flat(ours), flat(p.grad for p in held), atol=1e-12)


def test_the_norm_of_shards_is_the_root_of_squares(agreement):
    whole = gradients(2.0)
    norms = [global_norm([t[:1]]) for t in whole] + [global_norm([t[1:]]) for t in whole]
    agreement(
        "global_norm of shards, squared and added",
        "torch",
        torch.stack(norms).square().sum().sqrt(),
        torch.nn.utils.get_total_norm(whole),
        atol=1e-12,
    )


def test_pieces_equal_transformers_with_the_count(agreement):
    from transformers.loss.loss_utils import ForCausalLMLoss

    labels = torch.tensor([[-100, 1, 2, 3, 4, 0], [-100, -100, -100, 5, 6, -100]])
    logits = random(2, 6, 7)
    shifted = labels[:, 1:]
    counts = (shifted != -100).sum(1)
    theirs = sum(
        ForCausalLMLoss(logits[k : k + 1], labels[k : k + 1], 7, num_items_in_batch=counts.sum())
        for k in range(2)
    )
    ours = token_mean_scale(counts, world_size=1) * sum(
        functional.cross_entropy(logits[k, :-1], shifted[k], reduction="sum") for k in range(2)
    )
    agreement(
        "token mean of pieces by token_mean_scale",
        "transformers",
        ours,
        theirs.double(),
        atol=1e-6,
        convention="num_items_in_batch; transformers computes the loss in float32",
    )
    separate = sum(ForCausalLMLoss(logits[k : k + 1], labels[k : k + 1], 7) for k in range(2)) / 2
    assert abs(separate - theirs) > 1e-2


def _rank(rank, port, results):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = torch.nn.Linear(3, 1, bias=False).double()
    torch.nn.init.constant_(model.weight, 0.5)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    x, y = random(8, 3, seed=7), random(8, seed=8)
    cuts = [[slice(0, 1), slice(1, 4)], [slice(4, 6), slice(6, 8)]]
    factor = token_mean_scale(torch.tensor([1, 3, 2, 2]), world_size=2)
    for index, cut in enumerate(cuts[rank]):
        summed = (parallel(x[cut]).squeeze(-1) - y[cut]).square().sum()
        if index:
            (factor * summed).backward()
        else:
            with parallel.no_sync():
                (factor * summed).backward()
    if rank == 0:
        results.put(model.weight.grad.flatten().tolist())
    dist.destroy_process_group()


def test_two_ranks_of_two_pieces_equal_one_batch(agreement):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_rank, args=(port, results), nprocs=2)
    weight = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    loss = (random(8, 3, seed=7) @ weight - random(8, seed=8)).square().mean()
    agreement(
        "accumulated gradient by token_mean_scale, 2 ranks",
        "torch",
        torch.tensor(results.get(), dtype=torch.float64),
        torch.autograd.grad(loss, weight)[0],
        atol=1e-12,
        convention="DistributedDataParallel averages over ranks: W / N",
    )
