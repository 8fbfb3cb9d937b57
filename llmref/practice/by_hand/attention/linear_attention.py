"""Linear attention with decay, and the delta rule, in chunks: one head of one sequence."""

import torch


def linear_attention(q, k, v, log_decay, size):  # (T, Dk) (T, Dk) (T, Dv) (T,)
    state = q.new_zeros(k.shape[-1], v.shape[-1])  # (Dk, Dv): all that later tokens need
    out = torch.empty_like(v)
    for i in range(0, len(q), size):
        Q, K, V, g = (x[i : i + size] for x in (q, k, v, log_decay))
        # what is left at row t of what column j wrote: the decays after j, up to t
        pair = g[:, None].repeat(1, len(g)).tril(-1).cumsum(0).exp().tril()  # (c, c)
        since = g.cumsum(0).exp()[:, None]  # (c, 1): of the state that came in
        out[i : i + size] = since * (Q @ state) + (Q @ K.T * pair) @ V
        state = since[-1] * state + (pair[-1][:, None] * K).T @ V
    return out, state


def delta_rule(q, k, v, beta, log_decay, size):  # beta (T,)
    state = q.new_zeros(k.shape[-1], v.shape[-1])
    out = torch.empty_like(v)
    for i in range(0, len(q), size):
        Q, K, V, b, g = (x[i : i + size] for x in (q, k, v, beta, log_decay))
        pair = g[:, None].repeat(1, len(g)).tril(-1).cumsum(0).exp().tril()
        since = g.cumsum(0).exp()[:, None]
        error = b[:, None] * (V - since * (K @ state))  # if no write of this chunk were in the way
        A = b[:, None] * (K @ K.T) * pair  # read below the diagonal only; on it stands 1
        U = torch.linalg.solve_triangular(A, error, upper=False, unitriangular=True)
        out[i : i + size] = since * (Q @ state) + (Q @ K.T * pair) @ U
        state = since[-1] * state + (pair[-1][:, None] * K).T @ U  # as above, U in place of V
    return out, state
