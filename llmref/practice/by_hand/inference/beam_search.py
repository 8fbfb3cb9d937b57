"""Beam search with a length penalty, stopped as soon as no live beam can win."""

import torch


def beam_search(model, prompt, B, T, eos, alpha):  # model: tokens (b, t) -> log p (b, V)
    live, logp, done = prompt[None], torch.zeros(1), []
    for t in range(1, T + 1):
        total = logp[:, None] + model(live)  # (b, V)
        top, index = total.flatten().topk(min(2 * B, total.numel()))  # at most B of them end
        parent, token = index // total.shape[1], index % total.shape[1]
        text = torch.cat([live[parent], token[:, None]], 1)  # a cache is gathered like live
        ended = (token == eos) | (t == T)
        done += [(top[i] / t**alpha, text[i]) for i in ended[:B].nonzero().flatten()]
        live, logp = text[~ended][:B], top[~ended][:B]
        if len(live) == 0 or (done and max(d[0] for d in done) >= logp[0] / T**alpha):
            break  # alpha >= 0: a live beam can at best keep its log p, and grow to T tokens
    return max(done, key=lambda d: d[0])  # score, prompt and text
