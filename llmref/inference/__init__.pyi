from .speculative import acceptance_rate as acceptance_rate
from .speculative import best_draft_length as best_draft_length
from .speculative import expected_tokens as expected_tokens
from .speculative import residual_probs as residual_probs
from .speculative import speculative_step as speculative_step
from .speculative import speedup as speedup
