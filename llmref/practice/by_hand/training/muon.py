"""The iteration of Newton and Schulz, and one step of Muon."""


def newton_schulz(g, steps=5):  # (m, n)
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.abs().max() or 1)  # no square overflows or vanishes
    x = x / x.norm().clamp(min=1)  # singular values are at most 1
    tall = g.shape[0] > g.shape[1]
    if tall:
        x = x.T  # the smaller of the two Gram matrices
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if tall else x  # about U V', not exactly


def muon_step(w, g, m, lr, mu, wd):  # all (out, in)
    m = mu * m + g
    update = newton_schulz(g + mu * m)  # momentum first
    scale = 0.2 * max(g.shape) ** 0.5  # the root mean square of AdamW's steps
    return (1 - lr * wd) * w - lr * scale * update, m
