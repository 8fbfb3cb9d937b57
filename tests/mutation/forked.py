"""A child process that tries one mutant, and says in its exit status what became of it."""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable

KILLED, ALIVE = "killed", "alive"


def outcome(attempt: Callable[[], bool], seconds: float) -> str:
    """Run `attempt` in a child: is it true, or has it failed, crashed or taken too long?"""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = 1
        gc.freeze()  # what the parent has loaded is not looked through again
        try:
            status = 0 if attempt() else 1
        except BaseException:
            status = 1
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return ALIVE if status == 0 else KILLED
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return KILLED  # a loop without end is a mistake that one sees
