from .schedule import quadratic_second_moment as quadratic_second_moment
from .schedule import warmup_cosine as warmup_cosine
from .schedule import warmup_stable_decay as warmup_stable_decay
