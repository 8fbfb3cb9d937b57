"""Parameters, operations and memory of a decoder in training."""


def decoder_parameters(L, C, H, G, D, F, V, tied):
    attention = 2 * C * H * D + 2 * C * G * D  # queries and output; keys and values
    layer = attention + 3 * C * F + 2 * C  # gate, up and down; two norms
    tables = V * C if tied else 2 * V * C  # embedding and head
    return L * layer + C + tables  # C: the last norm


def decoder_flops_per_token(L, C, H, G, D, F, V, T):  # training, causal
    layer = 2 * C * H * D + 2 * C * G * D + 3 * C * F  # norms multiply nothing
    multiplied = L * layer + V * C  # the head, tied or not; the embedding is looked up
    scores = 4 * L * H * D * (T + 1) / 2  # a query sees (T + 1) / 2 keys on average
    return 3 * (2 * multiplied + scores)  # backward is twice forward


def zero_bytes(N, ranks, stage):  # Adam in mixed precision, on each rank
    weights = 2 * N / (ranks if stage >= 3 else 1)  # bfloat16
    grads = 2 * N / (ranks if stage >= 2 else 1)  # bfloat16
    adam = (4 + 4 + 4) * N / (ranks if stage >= 1 else 1)  # float32 weight, m and v
    return weights + grads + adam
