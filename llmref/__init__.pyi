from . import attention as attention
from . import components as components
from . import functional as functional
from . import inference as inference
from . import norm as norm
from . import rl as rl
from . import training as training
from . import verify as verify

__version__: str
