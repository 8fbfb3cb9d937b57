"""`python -m llmref`, the same as the command `llmref`."""

import sys


def main() -> int:
    """Run the command; it loads torch, which takes a second in which Ctrl-C must end it quietly."""
    try:
        from llmref.practice import console

        return console.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
