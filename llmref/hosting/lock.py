"""Runs a command while no other one runs under the same lock.

`python -m llmref.hosting.lock LOCK COMMAND...`: the command takes this process's place and
inherits the lock, which ends with it, however it ends.
"""

import os
import sys
from pathlib import Path


def main(lock: Path, command: list[str]) -> None:
    """Wait for the lock, then become the command."""
    if os.name == "posix":  # elsewhere builds are not kept apart
        import fcntl

        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another build is running here: waiting for it.", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.set_inheritable(descriptor, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
