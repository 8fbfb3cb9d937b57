from .adam import AdamState as AdamState
from .adam import adam_direction as adam_direction
from .adam import adam_l2_step as adam_l2_step
from .adam import adam_moments as adam_moments
from .adam import adam_step as adam_step
from .adam import adam_update_bound as adam_update_bound
from .adam import adamw_step as adamw_step
