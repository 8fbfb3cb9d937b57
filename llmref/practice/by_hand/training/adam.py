"""One step of AdamW."""


def adamw_step(p, g, m, v, t, lr, b1, b2, eps, wd):  # t = 1, 2, ...
    p = p * (1 - lr * wd)  # the decay is no gradient
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    m_hat = m / (1 - b1**t)
    v_hat = v / (1 - b2**t)
    return p - lr * m_hat / (v_hat.sqrt() + eps), m, v  # all of one shape
