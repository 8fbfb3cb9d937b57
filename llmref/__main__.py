"""`python -m llmref`, the same as the command `llmref`."""

import sys

from llmref.practice.console import main

sys.exit(main())
