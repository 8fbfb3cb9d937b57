"""How is exact attention computed, forward and backward, without ever storing its weights?

state: running sums and their merge. tiles: the blocks. flash: the loops over them. traffic: what
crosses the memory bus. Leaves out: dropout, the gradient of a bias, and what makes a kernel fast on
a GPU.
"""

from llmref.attention.online_softmax.flash import (
    flash_attention,
    flash_attention_backward,
)
from llmref.attention.online_softmax.state import (
    SoftmaxState,
    block_state,
    empty_state,
    finalize_state,
    merge_outputs,
    merge_states,
    online_logsumexp,
)
from llmref.attention.online_softmax.traffic import (
    hbm_elements,
    standard_hbm_elements,
)

__all__ = [
    "SoftmaxState",
    "block_state",
    "empty_state",
    "finalize_state",
    "flash_attention",
    "flash_attention_backward",
    "hbm_elements",
    "merge_outputs",
    "merge_states",
    "online_logsumexp",
    "standard_hbm_elements",
]
