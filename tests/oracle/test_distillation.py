"""Distillation against torch, TRL, torchtune and verl."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from llmref.functional.distillation import (
    forward_kl_loss,
    generalized_jsd_loss,
    on_policy_kl_loss,
    reverse_kl_loss,
    top_k_kl_loss,
)
from tests.tensors import gradient, random

TOPIC = "functional/distillation"
STUDENT, TEACHER = random(3, 5, 7), random(3, 5, 7, seed=1)
MASK = torch.arange(5) < torch.tensor([5, 2, 3])[:, None]
LABELS = torch.where(MASK, 1, -100)


def with_gradient(loss, at=STUDENT):
    return torch.cat([loss(at).reshape(1), gradient(loss, at).flatten()])


def test_divergences_equal_torch(agreement):
    """kl_div takes the logarithm of the second distribution first."""

    def directed(student, forward):
        pair = [x.div(2.5).log_softmax(-1)[MASK] for x in (student, TEACHER)]
        first, second = pair if forward else pair[::-1]
        summed = functional.kl_div(first, second, log_target=True, reduction="sum")
        return 2.5**2 * summed / MASK.sum()

    for name, loss in (("forward", forward_kl_loss), ("reverse", reverse_kl_loss)):
        agreement(
            f"{name}_kl_loss, value and gradient",
            "torch",
            with_gradient(
                lambda s, loss=loss: loss(s, TEACHER, MASK, temperature=2.5, agg="token-mean")
            ),
            with_gradient(lambda s, name=name: directed(s, name == "forward")),
            atol=1e-12,
            convention="F.kl_div(log q, log p, log_target=True) is KL(p||q); sum over the count",
        )


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jsd_equals_trl(agreement, beta):
    from trl.experimental.gkd import GKDTrainer

    agreement(
        "generalized_jsd_loss, value and gradient",
        "trl",
        with_gradient(
            lambda s: generalized_jsd_loss(s / 2, TEACHER / 2, MASK, beta=beta, agg="token-mean")
        ),
        with_gradient(
            lambda s: GKDTrainer.generalized_jsd_loss(s, TEACHER, LABELS, beta=beta, temperature=2)
        ),
        atol=1e-12,
        convention="GKDTrainer: logits over the temperature, no squared temperature",
    )


def test_ends_of_beta_are_the_kl_in_trl(agreement):
    from trl.experimental.gkd import GKDTrainer

    for beta, loss in ((0, forward_kl_loss), (1, reverse_kl_loss)):
        agreement(
            "forward and reverse KL at temperature 2, over its square",
            "trl",
            loss(STUDENT, TEACHER, MASK, temperature=2, agg="token-mean") / 4,
            GKDTrainer.generalized_jsd_loss(STUDENT, TEACHER, LABELS, beta=beta, temperature=2),
            atol=1e-12,
            convention="GKDTrainer, beta 0 and 1",
        )
    near = GKDTrainer.generalized_jsd_loss(STUDENT, TEACHER, LABELS, beta=1e-3)
    at = GKDTrainer.generalized_jsd_loss(STUDENT, TEACHER, LABELS, beta=0)
    assert near < at / 100  # the loss jumps


def test_bucket_equals_trls_tail(agreement):
    from trl.experimental.server_distillation import server_distillation_trainer as server

    logps, ids = TEACHER.log_softmax(-1).topk(3)

    def theirs(student):
        known = torch.ones_like(ids, dtype=torch.bool)
        s, support = server._add_tail_bucket(student.log_softmax(-1).gather(-1, ids), known)
        t, _ = server._add_tail_bucket(logps, known)
        return server._jsd_divergence(s, t, 0, support)[MASK].sum() / MASK.sum()

    agreement(
        "top_k_kl_loss, bucket, value and gradient",
        "trl",
        with_gradient(
            lambda s: top_k_kl_loss(s, logps, ids, MASK, tail="bucket", agg="token-mean")
        ),
        with_gradient(theirs),
        atol=1e-10,
        convention="server distillation: a tail bucket, beta 0",
    )


@pytest.mark.usefixtures("torchtune_imports")
def test_divergences_and_torchtune(agreement):
    from torchtune.modules.loss.kd_losses import ForwardKLLoss, ReverseKLLoss

    rows = STUDENT.flatten(0, 1), TEACHER.flatten(0, 1), LABELS.flatten()
    p = TEACHER.softmax(-1)
    entropy = torch.special.entr(p).sum(-1)[MASK].mean()
    options = {"temperature": 1.0, "agg": "token-mean"}
    agreement(
        "forward_kl_loss plus the teacher's entropy",
        "torchtune",
        forward_kl_loss(STUDENT, TEACHER, MASK, **options) + entropy,
        ForwardKLLoss()(*rows),
        atol=1e-6,
        convention="ForwardKLLoss is the cross-entropy, in float32",
    )
    agreement(
        "reverse_kl_loss",
        "torchtune",
        reverse_kl_loss(STUDENT, TEACHER, MASK, **options),
        ReverseKLLoss()(*rows),
        atol=1e-6,
        convention="ReverseKLLoss, in float32",
    )


def test_torchtune_drops_what_the_student_excludes(torchtune_imports):
    from torchtune.modules.loss.kd_losses import ForwardKLLoss

    student, teacher = torch.tensor([[0.0, -torch.inf]]), torch.zeros(1, 2)
    assert ForwardKLLoss()(student, teacher, torch.ones(1, dtype=torch.long)) == 0
    with pytest.raises(ValueError, match="infinite"):
        forward_kl_loss(
            student[None],
            teacher[None],
            torch.ones(1, 1, dtype=torch.bool),
            temperature=1.0,
            agg="token-mean",
        )


def test_renormalised_teacher_and_verls_plain_sum(agreement, verl):
    """P times the renormalised loss, plus P log P, is the plain sum; verl computes in float32."""
    from verl.trainer.distillation.fsdp.losses import compute_forward_kl_topk

    logps, ids = TEACHER[:1].log_softmax(-1).topk(3)
    mass = logps.exp().sum(-1)
    one = torch.ones(1, 1, dtype=torch.bool)
    ours = torch.stack(
        [
            top_k_kl_loss(s, p, i, one, tail="renormalize", agg="token-mean")
            for s, p, i in (
                (STUDENT[:1, t : t + 1], logps[:, t : t + 1], ids[:, t : t + 1]) for t in range(5)
            )
        ]
    )[None]

    def theirs(clamp):
        nested = [torch.nested.nested_tensor([x[0]], layout=torch.jagged) for x in (logps, ids)]
        options = SimpleNamespace(log_prob_min_clamp=clamp, use_chunked_topk=False)
        config = SimpleNamespace(distillation_loss=options)
        found = compute_forward_kl_topk(STUDENT[:1], *nested, config, "thd")
        return found["distillation_losses"]

    agreement(
        "plain sum over the top k, from the renormalised loss",
        "verl",
        mass * ours + mass * mass.log(),
        theirs(None),
        atol=1e-6,
        convention="forward_kl_topk with log_prob_min_clamp=None, before the clamp at 0",
    )


def test_present_cost_is_k1_as_a_policy_gradient_in_verl(agreement, verl):
    logp, teacher = STUDENT.log_softmax(-1)[..., 0], TEACHER.log_softmax(-1)[..., 0]

    def theirs(x):
        k1 = verl.kl_penalty(x, teacher, "k1").detach()
        return verl.agg_loss(k1 * x, MASK.double(), "token-mean")

    agreement(
        "on_policy_kl_loss of the present token, gradient",
        "verl",
        gradient(
            lambda x: on_policy_kl_loss(x, teacher, MASK, future=False, agg="token-mean"), logp
        ),
        gradient(theirs, logp),
        atol=1e-12,
        convention="kl_penalty 'k1' as a detached cost, agg_loss 'token-mean'",
    )
