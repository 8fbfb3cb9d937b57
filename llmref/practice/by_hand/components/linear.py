"""A linear layer, the gradients of its input, weight and bias, and the size of first weights."""


def linear(x, w, bias):
    return x @ w.T + bias  # (..., out): w is (out, in)


def linear_backward(grad, x, w):
    rows = grad.reshape(-1, grad.shape[-1])  # (m, out): all tokens below each other
    inputs = x.reshape(-1, x.shape[-1])  # (m, in)
    grad_x = grad @ w  # (..., in)
    grad_w = rows.T @ inputs  # (out, in): a sum over all tokens
    grad_bias = rows.sum(0)  # (out,)
    return grad_x, grad_w, grad_bias


def kaiming_std(fan_in):  # variance 2 / fan_in: a ReLU halves the second moment
    return (2 / fan_in) ** 0.5


def xavier_std(fan_in, fan_out):  # between 1 / fan_in and 1 / fan_out
    return (2 / (fan_in + fan_out)) ** 0.5
