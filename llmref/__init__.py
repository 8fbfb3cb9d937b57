"""llmref: the mathematics of large language models, each formula derived, executed and checked."""

__version__ = "0.1.0"
