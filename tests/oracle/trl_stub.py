"""TRL's loss of its GRPO trainer, called with a stand-in for the trainer: tensors in, loss out."""

import collections
import contextlib
from types import SimpleNamespace

import torch


class _Accelerator:
    device = torch.device("cpu")
    num_processes = 1
    sync_gradients = True
    gather = gather_for_metrics = staticmethod(lambda x: x)
    reduce = staticmethod(lambda x, reduction="sum": x)
    autocast = staticmethod(contextlib.nullcontext)


def trl_grpo_loss(
    logp: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    ref: torch.Tensor | None = None,
    loss_type: str = "grpo",
    level: str = "token",
    low: float = 0.2,
    high: float = 0.2,
    beta: float = 0.0,
    delta: float | None = None,
    correct: bool = True,
    steps: int = 1,
    items: int | None = None,
) -> torch.Tensor:
    """The loss of log-probabilities (N, T) with one advantage a row.

    `correct` is use_bias_correction_kl, `level` importance_sampling_level, `steps` the steps that a
    generation is used for, `items` num_items_in_batch; max_completion_length is T.
    """
    from trl import GRPOTrainer

    rows, length = logp.shape
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=_Accelerator(),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=beta,
        loss_type=loss_type,
        epsilon_low=low,
        epsilon_high=high,
        use_vllm=False,
        args=SimpleNamespace(
            use_bias_correction_kl=correct, delta=delta, steps_per_generation=steps
        ),
        current_gradient_accumulation_steps=1,
        max_completion_length=length,
        _entropy_bonus_enabled=False,
        _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
    )
    prompt = torch.zeros(rows, 1, dtype=torch.long)
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": prompt + 1,
        "completion_ids": torch.zeros(rows, length, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "num_items_in_batch": mask.sum() if items is None else torch.tensor(items),
        "old_per_token_logps": old,
    }
    if ref is not None:
        inputs["ref_per_token_logps"] = ref
    return GRPOTrainer._compute_loss(trainer, None, inputs)
