"""Runs a command while no other one runs under the same lock.

`python -m llmref.hosting.lock LOCK COMMAND...`: ends with the command's exit code. The system frees
the lock when this process ends, however it ends, and the command ends with it.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmref.hosting.processes import die_with_parent, run


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock; wait, and say for whom, if another process has it."""
    if os.name != "posix":  # there builds are not kept apart
        yield
        return
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    # Not inherited by any process that is started: else one that hangs would keep it.
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another build is running here{_holder(path)}: waiting for it.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        print(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}", file=file, flush=True)
        yield


def _holder(path: Path, patience: float = 1.0) -> str:
    """' (process 7, since 12:00:00)'; '' if the holder does not say so within `patience` seconds.

    It writes just after it has the lock, so whoever comes at that moment has to look again.
    """
    end = time.monotonic() + patience
    while not (said := path.read_text(encoding="utf-8", errors="replace").strip()):
        if time.monotonic() > end:
            return ""
        time.sleep(0.02)
    return f" ({said})"


def main(lock: Path, command: list[str]) -> int:
    """Wait for the lock, run the command, and return its exit code."""
    die_with_parent()
    with held(lock):
        code = run(command)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)
