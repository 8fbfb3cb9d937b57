"""What a call may end in although it looks like a find, by function, each with its reason.

Not here: what holds for all functions (see judge).
"""

# Other names of an argument in what an error says.
ALSO_NAMED: dict[str, tuple[str, ...]] = {
    # The name that a part gives to what the whole calls otherwise.
    "attn_mask": ("mask",),
    "rope_layout": ("layout",),
    "rope_base": ("base",),
    "qk_norm_eps": ("eps",),
    "hidden_dim": ("hidden",),
    "dim": ("embed_dim", "normalized_shape"),
    "h": ("x", "input"),
    "softcap": ("cap",),
    "lora_alpha": ("alpha",),
    "base": ("base_weight",),
    "functions": ("num_functions",),
    "betas": ("beta1", "beta2"),
    "result": ("logp", "length"),
    "config": ("dropout", "alpha", "r"),
    # The word for it in a sentence.
    "a": ("states",),
    "b": ("states",),
    "block_table": ("blocks",),
    "data": ("encode_bytes needs bytes",),
    "text": ("needs str",),
    "id": ("no token has the id", "an id must"),
    "ids": ("no token has the id", "an id must"),
    "merges": ("merge",),
    "pattern": ("regular expression", "text"),
    "source": ("target_modules", "must be off", "r", "lora_alpha"),
    "x": ("input", "tensor", "signal"),
    "packed": ("unpack_int4 needs",),
    "query": ("num_heads",),
    "segment_ids": ("document",),
    "desirable": ("a mask",),
    "corpus": ("text",),
    "vocab_size": ("num_merges",),
    "ratio": ("hidden",),
    "max_len": ("positions",),
    "writers": ("weight", "bias"),
    "model": ("weight",),
    "q": ("last axis", "x", "dtype"),
    "k": ("x",),
    "positions": ("cos",),
    "masks": ("mask",),
    "valid": ("sequence",),
    "mask": ("no token is counted",),
    "tokens_per_second": ("mfu",),
    "codes": ("codes",),
    "scale": ("scales",),
    "peak": ("peaks",),
    "tokens": ("token",),
    "lengths": ("length", "block_table"),
    "shape": ("m", "n"),
    "matrix": ("m", "n"),
    "lrs": ("rate",),
    "logits": ("num_experts", "softmax", "x", "tensor"),
    "state": ("is missing", "is no weight", "keys"),
    "weight": ("rows", "the head size"),
    "probs": ("num_experts",),
    "scores": ("diagonal",),
    "head": ("logits",),
    "student_logits": ("second distribution",),
    "teacher_top_logps": ("teacher's",),
    "block_tables": ("block_table",),
    "norm": ("weight",),
    "score_sq_norms": ("score",),
    "words": ("word",),
    "dtype": ("frequencies",),
    "qx": ("codes",),
    "chosen": ("penalty",),
    "rejected": ("penalty",),
}

# Errors other than ValueError and TypeError that a docstring promises.
ERRORS: dict[str, tuple[type[BaseException], ...]] = {
    f"inference.{name}": (MemoryError,)  # no block is free
    for name in ("BlockPool.allocate", "BlockPool.copy", "PagedKVCache.append")
}

# What layers pass on to torch, whose error says so: a check of dtypes would refuse autocast, and a
# block takes whatever its two parts take.
LAYERS = (".forward", ".head_outputs", ".logits")
OF_LAYERS = "have the same dtype"
OF_BLOCKS = {"norm.ResidualBlock.forward": "shapes cannot be multiplied"}

# Warnings that a docstring promises.
WARNINGS: dict[str, str] = {"components.BPETokenizer.train": "only .* merges"}

# Infinities that a docstring promises, of finite arguments.
INFINITE: dict[str, str] = {
    "training.token_weights": "a piece without a counted token, whose own mean is 0/0",
    "training.adam_update_bound": "with beta2 = 0, or beta1^2 above beta2, nothing bounds it",
    "attention.additive_mask": "-inf is what it is for",
    "attention.empty_state": "the maximum over nothing is -inf",
    "attention.online_logsumexp": "a row of no entries has the sum 0, whose logarithm is -inf",
    "functional.filtered_logprob": "a token that a filter has removed has the probability 0",
    **{
        f"functional.{name}": "what is filtered out gets -inf"
        for name in ("min_p_filter", "process_logits", "top_k_filter", "top_p_filter")
    },
}

# NaN of finite arguments that do not belong together, which no check could see but by the result.
NAN: dict[str, str] = {
    "attention.flash_attention_backward": "the sums of other scores than those of its keys",
}

# Arguments that a docstring says are changed in place.
IN_PLACE: dict[str, str] = {
    "components.add_peft_adapters": "it wraps layers of the model",
    "components.load_peft_state_dict": "it fills the adapters of the model",
    "components.load_transformers": "it fills the decoder",
    **{
        f"inference.PagedKVCache{method}": "it writes into the blocks of its pool, or counts them"
        for method in ("", ".append", ".block_table", ".fork", ".free", ".read")
    },
}

# Where float32 need not be close to float64: what is rounded to a grid, drawn, or chosen.
COARSE: dict[str, str] = {
    "components.LoRALinear": "it draws a factor",
    "functional.stochastic_round": "it draws, in each dtype another number of digits",
}
