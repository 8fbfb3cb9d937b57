"""Softmax in one pass, attention over blocks of keys, and the merge of two partial outputs."""

import torch


def online_softmax(x):
    m = torch.full_like(x[..., 0], torch.finfo(x.dtype).min)  # (...): largest so far
    total = torch.zeros_like(m)  # (...): sum of exponentials, relative to m
    for score in x.unbind(-1):  # one pass
        m_new = torch.maximum(m, score)
        total = total * torch.exp(m - m_new) + torch.exp(score - m_new)
        m = m_new
    return torch.exp(x - m[..., None]) / total[..., None]


def flash_attention(q, k, v, block):
    q = q / q.shape[-1] ** 0.5
    m = torch.full_like(q[..., :1], torch.finfo(q.dtype).min)  # (..., T, 1)
    total = torch.zeros_like(m)  # (..., T, 1)
    out = q.new_zeros(*q.shape[:-1], v.shape[-1])  # (..., T, Dv)
    for start in range(0, k.shape[-2], block):
        keys = k[..., start : start + block, :]  # (..., block, D)
        scores = q @ keys.transpose(-2, -1)  # (..., T, block)
        m_new = torch.maximum(m, scores.amax(-1, keepdim=True))
        p = torch.exp(scores - m_new)
        rescale = torch.exp(m - m_new)  # what was summed was relative to the old m
        total = rescale * total + p.sum(-1, keepdim=True)
        out = rescale * out + p @ v[..., start : start + block, :]
        m = m_new
    return out / total


def merge_outputs(o1, lse1, o2, lse2):  # lse = m + log(total): (..., T)
    share = torch.sigmoid(lse1 - lse2)[..., None]  # (..., 1)
    return share * o1 + (1 - share) * o2, torch.logaddexp(lse1, lse2)
