"""A linear layer with a low-rank adapter, and its weight with the adapter merged in."""


def lora(x, w, a, b, alpha):
    scale = alpha / a.shape[0]  # alpha / r
    low = x @ a.T  # (..., r): the product b @ a, as large as w, is never formed
    return x @ w.T + scale * low @ b.T  # (..., out)


def lora_merge(w, a, b, alpha):
    scale = alpha / a.shape[0]
    return w + scale * b @ a  # (out, in)
