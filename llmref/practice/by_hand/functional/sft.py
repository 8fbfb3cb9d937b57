"""The loss of supervised fine-tuning: the shift, the mask, the mean over counted tokens."""

import torch


def sft_loss(logits, tokens, mask):
    counted = mask[:, 1:]  # (B, T - 1), aligned with the targets
    targets = tokens[:, 1:][counted]  # (M,), M counted tokens
    z = logits[:, :-1][counted]  # (M, V), one position before each target
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    log_p = z.log_softmax(-1).gather(-1, targets.unsqueeze(-1))  # (M, 1)
    return -log_p.mean()
