from .mixed_precision import float_values as float_values
from .mixed_precision import fp8_scale as fp8_scale
from .mixed_precision import round_to_format as round_to_format
from .mixed_precision import stochastic_round as stochastic_round
from .mixed_precision import swallowed as swallowed
from .mixed_precision import unit_roundoff as unit_roundoff
from .mixed_precision import unscale as unscale
from .mixed_precision import update_loss_scale as update_loss_scale
