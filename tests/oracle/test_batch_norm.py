"""BatchNorm against torch."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from llmref.norm.batch_norm import (
    batch_norm_backward,
    batch_norm_eval,
    batch_norm_train,
    fold_batch_norm,
    merge_batch_stats,
    update_running,
)
from tests.tensors import random

TOPIC = "norm/batch_norm"


def test_three_training_steps_and_evaluation_equal_the_module(agreement):
    for theirs, shape in ((nn.BatchNorm1d(3), (6, 3)), (nn.BatchNorm2d(3), (2, 3, 4, 5))):
        theirs = theirs.double()
        nn.init.normal_(theirs.weight)
        nn.init.normal_(theirs.bias)
        running = theirs.running_mean.clone(), theirs.running_var.clone()
        for seed in range(3):
            x = 2 + random(*shape, seed=seed)
            y, mean, var = batch_norm_train(x, theirs.weight, theirs.bias, eps=1e-5)
            agreement("batch_norm_train", "torch", y, theirs(x), atol=1e-12)
            running = update_running(*running, mean, var, count=x.numel() // 3, momentum=0.1)
            agreement(
                "update_running",
                "torch",
                torch.stack(running),
                torch.stack([theirs.running_mean, theirs.running_var]),
                atol=1e-12,
                convention="momentum is the share of the new batch; variance with m - 1",
            )
        y = batch_norm_eval(x, *running, theirs.weight, theirs.bias, eps=1e-5)
        agreement("batch_norm_eval", "torch", y, theirs.eval()(x), atol=1e-12)


def test_no_momentum_averages_all_batches(agreement):
    theirs = nn.BatchNorm1d(3, momentum=None).double()
    running = theirs.running_mean.clone(), theirs.running_var.clone()
    for k in range(1, 5):
        x = random(6, 3, seed=k)
        theirs(x)
        _, *seen = batch_norm_train(x, eps=1e-5)
        running = update_running(*running, *seen, count=6, momentum=1 / k)
    agreement(
        "update_running, all batches alike",
        "torch",
        torch.stack(running),
        torch.stack([theirs.running_mean, theirs.running_var]),
        atol=1e-12,
        convention="momentum=None is 1 / k at batch k",
    )


def test_gradients_equal_the_kernel_of_torch(agreement):
    x, dy, weight = random(4, 3, 5), random(4, 3, 5, seed=1), random(3, seed=2)
    aten = torch.ops.aten
    _, mean, rstd = aten.native_batch_norm(x, weight, None, None, None, True, 0.1, 1e-5)
    gradients = aten.native_batch_norm_backward(
        dy, x, weight, None, None, mean, rstd, True, 1e-5, [True, True, True]
    )
    for ours, theirs in zip(batch_norm_backward(dy, x, weight, eps=1e-5), gradients, strict=True):
        agreement("batch_norm_backward", "torch", ours, theirs, atol=1e-12)


def test_folding_equals_the_fusion_of_torch(agreement):
    from torch.nn.utils.fusion import fuse_linear_bn_weights

    weight, bias, gamma, beta = (
        random(*s, seed=k) for k, s in enumerate([(3, 4), (3,), (3,), (3,)])
    )
    stats = random(3, seed=5), random(3, seed=6).square()
    theirs = fuse_linear_bn_weights(weight, bias, *stats, 1e-5, gamma, beta)
    for ours, other in zip(
        fold_batch_norm(weight, bias, *stats, gamma, beta, eps=1e-5), theirs, strict=True
    ):
        agreement("fold_batch_norm", "torch", ours, other.detach(), atol=1e-12)


def test_merged_statistics_equal_those_of_the_whole_batch(agreement):
    x = 3 + random(9, 4)
    parts = [x[:2], x[2:6], x[6:]]
    stats = [torch.stack([it.mean(0) for it in parts])]
    stats.append(torch.stack([it.var(0, correction=0) for it in parts]))
    mean, var = merge_batch_stats(*stats, torch.tensor([2, 4, 3]))
    theirs = functional.batch_norm(x, None, None, training=True)
    agreement(
        "merge_batch_stats",
        "torch",
        batch_norm_eval(x, mean, var, eps=1e-5),
        theirs,
        atol=1e-12,
        convention="the whole batch normalised by merged statistics",
    )


def test_what_torch_refuses():
    for x, eps, message in (
        (random(1, 3), 1e-5, "Expected more than 1 value per channel"),
        (random(4, 3), 0.0, "eps must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            functional.batch_norm(x, None, None, training=True, eps=eps)
