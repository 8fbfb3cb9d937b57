"""A paged cache: the slot of a position, an append that copies a shared block, reuse."""


def slot_index(block_table, positions, b):  # (M,), (T,) -> (T,)
    return block_table[positions // b] * b + positions % b


def append_token(x, pool, table, length, refs, free):  # x (D,), pool (blocks, b, D)
    pool, table, refs, free = pool.clone(), list(table), list(refs), list(free)
    b = pool.shape[1]
    if length % b == 0:  # all its blocks are full
        table.append(free.pop())
        refs[table[-1]] = 1
    elif refs[table[-1]] > 1:  # others read the last one: copy before the write
        old, new = table[-1], free.pop()
        pool[new] = pool[old]
        refs[old] -= 1
        refs[new] = 1
        table[-1] = new
    pool[table[-1], length % b] = x
    return pool, table, refs, free


def reused_blocks(prompt, texts, b):  # lists of tokens
    def keys(tokens):
        key = None
        for i in range(0, len(tokens) - b + 1, b):  # full blocks only
            key = (key, *tokens[i : i + b])  # names all tokens so far; in practice its hash
            yield key

    known = {key for text in texts for key in keys(text)}
    count = 0
    for key in keys(prompt[:-1]):  # the last token must run: its logits are wanted
        if key not in known:
            break
        count += 1
    return count
