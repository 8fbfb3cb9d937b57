"""Softmax, log-sum-exp and entropy against torch, scipy, TRL and verl."""

import math

import numpy as np
import pytest
import torch

from llmref.functional.softmax import (
    entropy,
    log_softmax,
    logsumexp,
    softmax,
    softmax_jacobian,
    softmax_vjp,
)

TOPIC = "functional/softmax"

FUNCTIONS = {
    "softmax": (softmax, torch.softmax),
    "log_softmax": (log_softmax, torch.log_softmax),
    "logsumexp": (logsumexp, torch.logsumexp),
}


def logits(*shape, seed=0, scale=5.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dim", [0, 2, -1])
def test_values_equal_torch(agreement, name, dim):
    ours, theirs = FUNCTIONS[name]
    x = logits(2, 3, 5, 7, 4)
    x[0, 1, 2, 3, 1] = -math.inf
    for shift in (0.0, 1e4, -1e4):
        actual, expected = ours(x + shift, dim), theirs(x + shift, dim)
        agreement(name, "torch", actual, expected, atol=1e-12, convention="natural logarithm")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_equal_torch(agreement, name):
    ours, theirs = FUNCTIONS[name]
    x = logits(3, 5, 7).requires_grad_()
    weights = logits(3, 5, 7, seed=1)
    if name == "logsumexp":
        weights = weights[..., 0]
    gradients = [torch.autograd.grad((f(x, -1) * weights).sum(), x)[0] for f in (ours, theirs)]
    agreement(f"{name}, gradient", "torch", *gradients, atol=1e-12)


def test_vjp_equals_the_kernel_of_torch(agreement):
    p, grad = softmax(logits(3, 5, 7)), logits(3, 5, 7, seed=1)
    theirs = torch.ops.aten._softmax_backward_data(grad, p, -1, torch.float64)
    agreement("softmax_vjp", "torch", softmax_vjp(p, grad), theirs, atol=1e-12)


def test_jacobian_equals_autograd_of_torch(agreement):
    x = logits(7)
    theirs = torch.autograd.functional.jacobian(lambda t: torch.softmax(t, -1), x)
    agreement("softmax_jacobian", "torch", softmax_jacobian(softmax(x)), theirs, atol=1e-12)


def test_entropy_equals_torch(agreement):
    p = softmax(logits(3, 5, 7))
    p = torch.cat([p, torch.eye(7, dtype=torch.float64).expand(3, 7, 7)], dim=1)  # 0 log 0
    agreement("entropy", "torch", entropy(p), torch.special.entr(p).sum(-1), atol=1e-12)


def test_lse_of_an_empty_row_equals_torch(agreement):
    x = torch.full((2, 3), -math.inf, dtype=torch.float64)
    convention = "-inf, an empty sum"
    ours, theirs = logsumexp(x), torch.logsumexp(x, -1)
    agreement("logsumexp, empty row", "torch", ours, theirs, atol=0, convention=convention)


def test_softmax_of_an_empty_row_is_nan_in_torch():
    assert torch.softmax(torch.full((3,), -math.inf), -1).isnan().all()


def test_a_confident_row_loses_its_loss_in_torch():
    """1 + exp(-20) rounds to 1 in float32, and so the logarithm to 0."""
    x = torch.tensor([0.0, -20.0])
    assert torch.log_softmax(x, -1)[0] == torch.logsumexp(x, -1) == 0
    assert abs(logsumexp(x).item() / math.log1p(math.exp(-20)) - 1) < 1e-6
    assert abs(-log_softmax(x)[0].item() / math.log1p(math.exp(-20)) - 1) < 1e-6


def test_values_equal_scipy(agreement):
    import scipy.special

    x = logits(3, 5, 7)
    for name, (ours, _) in FUNCTIONS.items():
        theirs = getattr(scipy.special, name)(x.numpy(), axis=1)
        agreement(name, "scipy", ours(x, 1), torch.from_numpy(np.asarray(theirs)), atol=1e-12)


def test_entropy_and_chosen_log_probability_equal_trl(agreement):
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    x = logits(3, 5, 7)
    index = torch.arange(15).reshape(3, 5) % 7
    chosen = log_softmax(x).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    agreement("log_softmax", "trl", chosen, selective_log_softmax(x, index), atol=1e-12)
    convention = "nats per token, from logits"
    ours, theirs = entropy(softmax(x)), entropy_from_logits(x)
    agreement("entropy", "trl", ours, theirs, atol=1e-12, convention=convention)


def test_entropy_equals_verl(agreement, stand_in):
    stand_in("ray")
    from verl.utils.torch_functional import entropy_from_logits

    x = logits(3, 5, 7)
    convention = "nats per token, lse(x) - p.x"
    ours, theirs = entropy(softmax(x)), entropy_from_logits(x)
    agreement("entropy", "verl", ours, theirs, atol=1e-12, convention=convention)


def test_entropy_from_logits_with_a_masked_token_is_nan_in_trl_and_verl(stand_in):
    """Both multiply a probability 0 by -inf; ours takes 0 log 0 = 0."""
    stand_in("ray")
    from trl.trainer.utils import entropy_from_logits as trl_entropy
    from verl.utils.torch_functional import entropy_from_logits as verl_entropy

    x = torch.tensor([[0.0, 0.0, -math.inf]], dtype=torch.float64)
    assert trl_entropy(x).isnan()
    assert verl_entropy(x).isnan()
    assert abs(entropy(softmax(x)).item() - math.log(2)) < 1e-12
