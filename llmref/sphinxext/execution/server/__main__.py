"""A server that has imported the heavy libraries once and forks a fresh Jupyter kernel on request.

Run as a folder (`python server FOLDER SEED MODULE...`), so that neither llmref nor Sphinx is loaded
in any kernel, and nothing of ours can be imported by its bare name. It reads one JSON request a
line and answers one JSON line. When its input ends, which happens however the build ends, it kills
every kernel with all that its cells have started, removes FOLDER and exits.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any

# What a kernel imports when it starts.
_KERNEL_MODULES = ("ipykernel.kernelapp", "ipykernel.debugger", "IPython.extensions.storemagic")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_exit_codes: dict[int, int | None] = {}  # None while the kernel runs


def main(folder: str, seed: int, modules: list[str]) -> None:
    """Import `modules`, seed torch, then serve until the input ends."""
    # Ctrl-C reaches the whole foreground group; the build decides when the server ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a cell has started and left behind becomes a child of the server, not of the system.
    _control(_PR_SET_CHILD_SUBREAPER, 1)
    os.chdir(folder)  # matplotlib would read its settings from the folder of the build
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # or each kernel takes 0.2 s for it
    gc.disable()  # nothing that is imported is garbage, and looking for it takes a tenth longer
    for module in [*_KERNEL_MODULES, *modules]:
        importlib.import_module(module)
    gc.freeze()  # nor in any kernel, which would copy the memory that it shares
    gc.enable()
    operations: dict[str, Callable[..., Any]] = {
        "launch": functools.partial(launch, seed),
        "poll": poll,
        "signal": send_signal,
    }
    try:
        print(json.dumps({"ready": os.getpid()}), flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            answer = operations[request.pop("operation")](**request)
            print(json.dumps(answer), flush=True)
    finally:
        for pid in _exit_codes:
            send_signal(pid, signal.SIGKILL)
        while started := _descendants(os.getpid()):  # a process may start another meanwhile
            _kill(started)
        shutil.rmtree(folder, ignore_errors=True)


class Watched:
    """A global generator of random numbers; it stands in place of the function that seeds it.

    It is asked at the end of a page whether numbers were drawn that no cell had seeded.
    """

    def __init__(self, owner: Any, name: str, state: Callable[[], Any], seed: int) -> None:
        self._seed, self._state = getattr(owner, name), state
        self._seed(seed)
        self._untouched = state()
        self._seeded = self._drawn = False
        setattr(owner, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Seed; without a number that is a draw from the system."""
        self._drawn = self.drawn() or next(iter((*arguments, *options.values())), None) is None
        self._seeded = True
        return self._seed(*arguments, **options)

    def drawn(self) -> bool:
        """Whether a number was drawn that was not seeded."""
        return self._drawn or (not self._seeded and self._state() != self._untouched)


def watch_generators(seed: int) -> None:
    """Seed the generators of Python, numpy and torch, and watch them in every kernel."""
    watched = {"random": Watched(random, "seed", random.getstate, seed)}
    if numpy := sys.modules.get("numpy"):
        state = numpy.random.get_state
        watched["numpy.random"] = Watched(
            numpy.random,
            "seed",
            lambda: [str(part) for part in (*state(), state()[1].tobytes())],
            seed,
        )
    if torch := sys.modules.get("torch"):
        watched["torch"] = Watched(
            torch, "manual_seed", lambda: torch.get_rng_state().numpy().tobytes(), seed
        )
        torch.random.manual_seed = torch.manual_seed
    sys.modules["random"].__dict__["llmref_watched"] = watched


def launch(seed: int, arguments: list[str], directory: str, environment: dict[str, str]) -> int:
    """Fork a kernel and return its process id."""
    pid = os.fork()
    if pid == 0:
        _become_kernel(seed, arguments, directory, environment)
    _exit_codes[pid] = None
    return pid


def poll(pid: int) -> int | None:
    """Return the exit code, or None while the kernel runs."""
    if _exit_codes[pid] is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _exit_codes[pid] = os.waitstatus_to_exitcode(status)
    return _exit_codes[pid]


def send_signal(pid: int, number: int) -> None:
    """Send a signal to the kernel and to whatever it started."""
    if poll(pid) is None:
        started = _descendants(pid) if number == signal.SIGKILL else []
        # The kernel leads a session of its own, but perhaps has not come that far yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        if number == signal.SIGKILL:
            # At once: Jupyter would come back to ask only after a tenth of a second.
            _exit_codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _kill(started)  # in sessions of their own, which the signal has not reached


def _descendants(pid: int) -> list[int]:
    """Return all processes that a process has started, directly or through others."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8") as file:
            # 'pid (name) state parent ...', and a name may hold anything.
            parent = int(file.read().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # not yet ours: its parent has to end first
            os.waitpid(pid, os.WNOHANG)


def _control(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _become_kernel(
    seed: int, arguments: list[str], directory: str, environment: dict[str, str]
) -> None:
    """In the child: drop what is the server's, and run the kernel until it ends."""
    code = 1
    server = os.getppid()
    try:
        _control(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should the server be killed
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)  # so that only the server holds the request pipe
        os.dup2(2, 1)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        from ipykernel.kernelapp import IPKernelApp

        application: Any = IPKernelApp.instance()
        # The kernel ends by itself when the server is no longer its parent.
        application.initialize([*arguments, f"--IPKernelApp.parent_handle={server}"])
        watch_generators(seed)  # not before: Python seeds its own anew in each forked process
        application.start()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)  # without the server's own clean-up


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
    os._exit(0)  # taking torch apart would keep the build waiting
