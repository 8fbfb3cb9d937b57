"""Cross-entropy of logits, averaged over the counted positions, and its gradient."""

import torch


def cross_entropy(logits, targets, ignore_index):
    counted = targets != ignore_index  # (...)
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p = logits[counted].to(wide).log_softmax(-1)  # (M, V), M counted positions
    chosen = log_p.gather(-1, targets[counted].unsqueeze(-1))  # (M, 1)
    return -chosen.mean()


def cross_entropy_backward(logits, targets):  # no position is ignored
    p = logits.softmax(-1)  # (..., V)
    onehot = torch.nn.functional.one_hot(targets, logits.shape[-1])
    return (p - onehot) / targets.numel()  # of the mean over all positions
