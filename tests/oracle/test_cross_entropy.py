"""Cross-entropy against torch, transformers, torchtune and scipy."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from llmref.functional.cross_entropy import (
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_hessian,
    kl_divergence,
    linear_cross_entropy,
)
from llmref.functional.softmax import softmax

TOPIC = "functional/cross_entropy"
B, T, V, C = 2, 3, 5, 4
IGNORED = "class axis second, (N, V); mean over counted positions"


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=generator)


def inputs(soft=False):
    logits = random(B, T, V)
    if soft:
        return logits, softmax(random(B, T, V, seed=1))
    target = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(0))
    target[0, 1] = -100
    return logits, target


def flat(logits, target):
    return logits.reshape(-1, V), target.reshape(B * T, -1).squeeze(-1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_values_and_gradients_equal_torch(agreement, reduction, smoothing, weighted, soft):
    logits, target = inputs(soft)
    weight = random(V, seed=2).abs() if weighted else None
    options = {"label_smoothing": smoothing, "weight": weight, "reduction": reduction}
    leaf = logits.requires_grad_()
    ours = cross_entropy(leaf, target, **options)
    theirs = F.cross_entropy(*flat(leaf, target), **options).reshape(ours.shape)
    formula = "cross_entropy" + (", probabilities" if soft else "")
    convention = IGNORED
    if soft:
        convention = "mean over N"
    if weighted:
        formula += ", weights"
        convention = "mean over N even with weights" if soft else "mean over the sum of weights"
    agreement(formula, "torch", ours, theirs, atol=1e-12, convention=convention)
    gradients = [torch.autograd.grad(loss.sum(), leaf)[0] for loss in (ours, theirs)]
    agreement(f"{formula}, gradient", "torch", *gradients, atol=1e-12, convention=convention)


def test_gradient_and_hessian_equal_autograd_of_torch(agreement):
    logits, target = random(V), torch.tensor(3)

    def theirs(x):
        return F.cross_entropy(x, target)

    agreement(
        "cross_entropy_grad",
        "torch",
        cross_entropy_grad(logits, target),
        torch.autograd.functional.jacobian(theirs, logits),
        atol=1e-12,
    )
    agreement(
        "cross_entropy_hessian",
        "torch",
        cross_entropy_hessian(logits),
        torch.autograd.functional.hessian(theirs, logits),
        atol=1e-12,
    )


def test_the_class_axis_of_torch_is_the_second_one(agreement):
    logits, target = inputs()
    theirs = F.cross_entropy(logits.transpose(1, 2), target)
    agreement(
        "cross_entropy",
        "torch",
        cross_entropy(logits, target),
        theirs,
        atol=1e-12,
        convention=IGNORED,
    )
    # One class for each position: the wrong axis gives a number and no error.
    square = random(2, V, V)
    wrong = F.cross_entropy(square, target[:, :1].clamp(min=0).expand(2, V))
    right = cross_entropy(square, target[:, :1].clamp(min=0).expand(2, V))
    assert abs(wrong - right) > 0.1


def test_binary_case_equals_torch(agreement):
    s = random(7)
    y = torch.tensor([1.0, 0, 1, 1, 0, 0, 1], dtype=torch.float64)
    logits = torch.stack([torch.zeros_like(s), s], dim=-1)
    ours = cross_entropy(logits, y.long(), reduction="none")
    theirs = F.binary_cross_entropy_with_logits(s, y, reduction="none")
    convention = "logits (0, s)"
    agreement(
        "cross_entropy, two classes", "torch", ours, theirs, atol=1e-12, convention=convention
    )


def test_chunks_equal_the_chunked_form_of_torch(agreement):
    hidden = random(B * T, C).requires_grad_()
    head = random(V, C, seed=1).requires_grad_()
    _, target = inputs()
    target = target.flatten()
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2)
    for reduction in ("mean", "sum"):
        for smoothing in (0.0, 0.1):
            ours = linear_cross_entropy(
                hidden, head, target, chunk_size=2, label_smoothing=smoothing, reduction=reduction
            )
            convention = "LinearCrossEntropyOptions(batch_chunk_size=2)"
            theirs = F.linear_cross_entropy(
                hidden,
                head,
                target,
                ignore_index=-100,
                label_smoothing=smoothing,
                reduction=reduction,
                options=options,
            )
            name = "linear_cross_entropy"
            agreement(name, "torch", ours, theirs, atol=1e-12, convention=convention)
            for a, b in zip(
                torch.autograd.grad(ours, (hidden, head)),
                torch.autograd.grad(theirs, (hidden, head)),
                strict=True,
            ):
                agreement(f"{name}, gradient", "torch", a, b, atol=1e-12, convention=convention)


def test_kl_equals_torch_and_scipy(agreement):
    from scipy.special import rel_entr

    p, q = softmax(random(B, T, V)), softmax(random(B, T, V, seed=1))
    p = torch.cat([p, torch.eye(V, dtype=torch.float64)[:T].expand(B, T, V)])  # 0 log 0
    q = torch.cat([q, q])
    ours = kl_divergence(p, q)
    theirs = F.kl_div(q.log(), p, reduction="none").sum(-1)
    convention = "kl_div(log q, p): the second distribution comes first, as a logarithm"
    agreement("kl_divergence", "torch", ours, theirs, atol=1e-12, convention=convention)
    theirs = torch.from_numpy(rel_entr(p.numpy(), q.numpy())).sum(-1)
    agreement("kl_divergence", "scipy", ours, theirs, atol=1e-12, convention="rel_entr(p, q)")


def test_the_mean_of_kl_div_is_over_entries_and_batchmean_over_rows():
    p, q = softmax(random(T, V)), softmax(random(T, V, seed=1))
    mean = kl_divergence(p, q).mean()
    with pytest.warns(UserWarning, match="reduction: 'mean' divides the total loss by both"):
        entries = F.kl_div(q.log(), p, reduction="mean")
    torch.testing.assert_close(entries * V, mean)
    torch.testing.assert_close(F.kl_div(q.log(), p, reduction="batchmean"), mean)


def test_causal_loss_equals_transformers(agreement):
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits, target = inputs()
    for items in (None, torch.tensor(4)):
        theirs = ForCausalLMLoss(logits, target, V, num_items_in_batch=items)
        shifted = logits[:, :-1], target[:, 1:]
        ours = cross_entropy(*shifted, reduction="mean" if items is None else "sum")
        agreement(
            "cross_entropy, next token",
            "transformers",
            ours if items is None else ours / items,
            theirs,
            atol=1e-6,
            convention="shifts inside; float32; sum / num_items_in_batch if that is given",
        )


def test_label_smoothing_equals_transformers(agreement):
    from transformers.trainer_pt_utils import LabelSmoother

    logits, target = inputs()
    agreement(
        "cross_entropy, label smoothing",
        "transformers",
        cross_entropy(logits, target, label_smoothing=0.1),
        LabelSmoother(epsilon=0.1)({"logits": logits}, target),
        atol=1e-6,
        convention="LabelSmoother, the uniform part summed in float32",
    )


def test_z_loss_equals_the_router_loss_of_transformers(agreement):
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        router_z_loss_func,
    )

    logits, target = inputs()
    target = target.clamp(min=0)
    ours = cross_entropy(logits, target, z_loss=1.0) - cross_entropy(logits, target)
    theirs = router_z_loss_func(logits)
    convention = "mean of lse^2, no coefficient, nothing ignored"
    agreement("z-loss", "transformers", ours, theirs, atol=1e-12, convention=convention)


@pytest.mark.usefixtures("torchtune_imports")
def test_chunks_of_logits_equal_torchtune(agreement):
    from torchtune.modules.loss import CEWithChunkedOutputLoss

    logits, target = inputs()
    loss = CEWithChunkedOutputLoss(num_output_chunks=T)
    theirs = loss(list(logits.chunk(T, dim=1)), target)
    agreement(
        "cross_entropy",
        "torchtune",
        cross_entropy(logits, target),
        theirs,
        atol=1e-6,
        convention="CEWithChunkedOutputLoss; float32 a chunk",
    )


def test_torch_returns_nan_where_this_raises_or_has_a_value():
    nothing = torch.full((2,), -100)
    assert F.cross_entropy(random(2, V), nothing).isnan()
    assert F.cross_entropy(random(2, V), nothing, reduction="sum") == 0
    logits = torch.tensor([[0.0, -math.inf, 0.0]])
    target = torch.tensor([[0.5, 0.0, 0.5]])
    assert F.cross_entropy(logits, target).isnan()
    assert abs(cross_entropy(logits, target).item() - math.log(2)) < 1e-6
    spoiled = random(2, V)
    spoiled[1] = math.nan
    spoiled.requires_grad_()
    loss = F.cross_entropy(spoiled, torch.tensor([1, -100]))
    assert loss.isfinite()
    assert torch.autograd.grad(loss, spoiled)[0][1].isnan().all()
    assert (
        torch.autograd.grad(cross_entropy(spoiled, torch.tensor([1, -100])), spoiled)[0][1]
        .eq(0)
        .all()
    )


def test_torch_takes_target_probabilities_that_do_not_sum_to_one():
    logits, target = random(V), torch.full((V,), 0.5, dtype=torch.float64)
    assert F.cross_entropy(logits, target).isfinite()
    with pytest.raises(ValueError, match="must sum to 1"):
        cross_entropy(logits, target)


def test_torch_returns_the_loss_of_half_precision_logits_in_half_precision():
    """At a loss near 10 the steps of bfloat16 are 1/16."""
    logits = random(64, 1000).bfloat16()
    target = torch.arange(64)
    theirs, ours = F.cross_entropy(logits, target), cross_entropy(logits, target)
    assert theirs.dtype == torch.bfloat16
    assert ours.dtype == torch.float32
    exact = cross_entropy(logits.double(), target)
    assert abs(ours - exact) < 1e-5
    assert 1e-3 < abs(theirs - exact) < exact / 256
