from .gradient_accumulation import clip_by_global_norm as clip_by_global_norm
from .gradient_accumulation import clip_by_value as clip_by_value
from .gradient_accumulation import global_norm as global_norm
from .gradient_accumulation import token_mean_scale as token_mean_scale
from .gradient_accumulation import token_weights as token_weights
