"""Practice: the formulas of the site as one writes them from memory, and a judge for them.

`from llmref.practice import judge` and `judge("rms_norm", my_function)` give a verdict; the command
`llmref practice` does the same in a terminal.
The top layer: it may import every group, and no group imports it. Leaves out: derivations, which
are on the pages, and the functions that others call, which are in the groups.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmref.practice.submission import inputs as inputs
    from llmref.practice.submission import judge as judge
    from llmref.practice.verdict import Verdict as Verdict

_HOMES = {"inputs": "submission", "judge": "submission", "Verdict": "verdict"}


def __getattr__(name: str) -> Any:
    """Load what is asked for: pages import the code by hand alone, and must not reach the judge."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
