"""Real Jupyter kernels that start warm: forked from a server that has imported torch already.

Where processes cannot be forked safely (Windows, macOS), ordinary kernels serve instead; they too
end with the build.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from llmref.sphinxext.execution.folders import KernelFolder

_SERVER = Path(__file__).with_name("server")
PROVISIONER = "llmref-warm"
# The seed of torch's global generator in every kernel: runner.py refuses a page that draws with it.
UNSEEDED = 0x11A5EED
# Importing them takes seconds, and no page can tell a forked import from its own. Not the inline
# backend of matplotlib: on import it hooks into the running kernel, and here there is none yet.
PRELOADED = ("matplotlib.pyplot", "sympy", "torch")
# Pages run side by side, one thread each: then a sum is added in the same order on any machine.
# A fixed hash seed makes the order of sets, and so of what sympy prints, the same in every build.
# matplotlib reads its backend when it is imported, in the server before there is a kernel, and its
# settings from an empty file: the user's own would change every picture.
KERNEL_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": os.devnull,
}


class ServerEndedError(RuntimeError):
    """The server of kernels is no more, and so are its kernels."""


class KernelServer:
    """The client's side of server/; a context manager that leaves nothing behind."""

    current: "KernelServer | None" = None

    def __init__(self, python_path: str = "", modules: Sequence[str] = ()) -> None:
        self._folder = KernelFolder()
        self.folder = self._folder.path
        self._settings = python_path, tuple(modules)
        self._ready = False
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER), self.folder, str(UNSEEDED), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kernel_environment(python_path),
            # Else a signal to the whole group would end it before it has ended what cells started;
            # it ends when its input does, however the build ends.
            start_new_session=True,
        )

    def serves(self, python_path: str, modules: Sequence[str]) -> bool:
        """Whether this server was started with just these settings."""
        return self._settings == (python_path, tuple(modules))

    def __enter__(self) -> "KernelServer":
        KernelServer.current = self
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and all its kernels."""
        KernelServer.current = None
        if not self._ready:
            self._process.kill()  # still importing: it has no kernels
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has been killed
            self._process.stdin.close()  # at which the server kills the kernels and ends
        self._process.wait()
        self._process.stdout.close()
        self._folder.remove()

    def wait_until_ready(self) -> None:
        """Wait until the imports are done."""
        with self._lock:
            if not self._ready:
                self._read()
                self._ready = True

    def request(self, operation: str, **arguments: Any) -> Any:
        """Send one request and return the answer."""
        assert self._process.stdin is not None
        self.wait_until_ready()
        with self._lock:
            with contextlib.suppress(BrokenPipeError):  # then there is no answer either
                self._process.stdin.write(json.dumps({"operation": operation, **arguments}) + "\n")
                self._process.stdin.flush()
            return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ServerEndedError(f"the kernel server ended with code {self._process.wait()}")
        return json.loads(line)


class WarmProcess:
    """A forked kernel, with the part of subprocess.Popen that Jupyter uses."""

    stdin = stdout = stderr = None

    def __init__(self, server: KernelServer, pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        """Return the exit code, or None while the kernel runs."""
        try:
            code: int | None = self._server.request("poll", pid=self.pid)
        except ServerEndedError:
            code = -signal.SIGKILL
        return code

    wait = poll  # Jupyter waits only for what has ended

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel."""
        with contextlib.suppress(ServerEndedError):
            self._server.request("signal", pid=self.pid, number=int(number))


class WarmProvisioner(LocalProvisioner):
    """Starts a kernel by forking the running server, or an ordinary one if there is none."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch the kernel that `cmd`, 'python -m ipykernel_launcher ARGUMENTS', describes."""
        server = KernelServer.current
        if server is None:
            return await super().launch_kernel(cmd, **kwargs)
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        pid = server.request(
            "launch",
            arguments=arguments,
            directory=kwargs.get("cwd") or os.getcwd(),
            environment=kwargs.get("env") or dict(os.environ),
        )
        self.process = WarmProcess(server, pid)  # type: ignore[assignment]
        self.pid = pid
        return self.connection_info


def python_path(root: Path) -> str:
    """Return the search path of kernels: the code that runs is the code in `root`."""
    return os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))


def kernel_environment(python_path: str, **more: str) -> dict[str, str]:
    """Return the environment of the server and of its kernels."""
    return {**os.environ, **KERNEL_ENVIRONMENT, "PYTHONPATH": python_path, **more}


def can_fork() -> bool:
    """Whether kernels may be forked from a process that has loaded torch."""
    return sys.platform == "linux"


class OwnKernel(KernelSpecManager):
    """Knows one kernel, this very Python: what else is installed by that name is none of ours."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return how it is started."""
        launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=launch, display_name=kernel_name, language="python")


def new_manager(folder: str, number: int) -> AsyncKernelManager:
    """Return a manager of one kernel, whose files are in `folder`."""
    factory = KernelProvisionerFactory.instance()
    factory.default_provisioner_name = PROVISIONER
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=OwnKernel())
    manager.connection_file = str(Path(folder) / f"{number}.json")
    if os.name == "posix":
        # Sockets in the folder: two builds that start at once cannot take each other's ports.
        manager.transport = "ipc"
    return manager
