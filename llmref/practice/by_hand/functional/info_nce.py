"""InfoNCE with the other keys of the batch as negatives, and CLIP's loss in both directions."""

import torch


def info_nce(a, b, temperature):
    a, b = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (a, b))
    a = a / a.norm(dim=-1, keepdim=True)  # (B, D), of length 1
    b = b / b.norm(dim=-1, keepdim=True)
    scores = a @ b.T / temperature  # (B, B): row i has its positive in column i
    return -scores.log_softmax(-1).diagonal().mean()


def clip_loss(a, b, temperature):  # queries choose keys, and keys choose queries
    return (info_nce(a, b, temperature) + info_nce(b, a, temperature)) / 2
