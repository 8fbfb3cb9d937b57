"""The folder of a build's kernels: their sockets and settings, gone when the build is.

Leaves out: what is kept between builds (store).
"""

import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "llmref-"
# A socket's address has room for about a hundred characters, and Jupyter adds twenty.
_LONGEST = 80


class KernelFolder:
    """A temporary folder; those of builds that were killed are removed when a new one is made."""

    def __init__(self) -> None:
        _remove_left_over()
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        if len(self.path) > _LONGEST and os.name == "posix":
            os.rmdir(self.path)
            self.path = tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp")
        # The system frees the lock when the build ends, however it ends.
        self._alive = (Path(self.path) / "alive").open("w")
        _lock(self._alive.fileno())

    def __enter__(self) -> "KernelFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        self._alive.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_left_over() -> None:
    for alive in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/alive"):
        try:
            if os.name != "posix" or alive.stat().st_uid != os.getuid():
                continue
            with alive.open("w") as file:
                _lock(file.fileno())
                shutil.rmtree(alive.parent, ignore_errors=True)
        except OSError:  # a build that runs, or one that has removed it meanwhile
            continue


def _lock(descriptor: int) -> None:
    """Take the lock of a folder, or raise an OSError if a build that runs has it."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
