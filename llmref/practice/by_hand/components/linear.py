"""A linear layer, and the gradients of its input, weight and bias."""


def linear(x, w, bias):
    return x @ w.T + bias  # (..., out): w is (out, in)


def linear_backward(grad, x, w):
    rows = grad.reshape(-1, grad.shape[-1])  # (m, out): all tokens below each other
    inputs = x.reshape(-1, x.shape[-1])  # (m, in)
    grad_x = grad @ w  # (..., in)
    grad_w = rows.T @ inputs  # (out, in): a sum over all tokens
    grad_bias = rows.sum(0)  # (out,)
    return grad_x, grad_w, grad_bias
