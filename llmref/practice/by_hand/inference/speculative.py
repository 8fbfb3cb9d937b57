"""One step of speculative decoding, the tokens that it gives on average, and how many to draft."""

import torch


def speculative_step(p, q, x, u):  # target (K + 1, V), draft (K, V), tokens (K,), uniforms (K + 1,)
    for i, token in enumerate(x):
        if u[i] * q[i, token] >= p[i, token]:  # refused: kept with probability min(1, p / q)
            rest = (p[i] - q[i]).clamp(min=0)  # what the draft leaves of the target
            if not rest.any():  # p = q up to rounding
                rest = p[i]
            break
    else:  # all kept: one token more
        i, rest = len(x), p[-1]
    cdf = rest.cumsum(0)
    last = (cdf <= u[-1] * cdf[-1]).sum()  # a draw from rest, normalised
    return torch.cat([x[:i], last[None]])


def expected_tokens(alpha, K):
    return sum(alpha**k for k in range(K + 1))  # 1 at least, K + 1 at most


def best_draft_length(alpha, c, max_length):  # c: a draft pass in target passes
    tokens = 1.0  # after k drafts
    for k in range(max_length):
        gain = alpha ** (k + 1)  # how often one draft more is kept
        if gain * (c * k + 1) <= c * tokens:  # gain / c is below tokens / (c k + 1)
            return k
        tokens += gain
    return max_length
