"""llmref: the mathematics of large language models, each formula derived, executed and checked.

A front door to the groups: `import llmref` loads none of them, `llmref.rl` the one that is asked
for. Leaves out: how the site is built (sphinxext, hosting), which readers do not import.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
