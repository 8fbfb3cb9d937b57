"""Executes pages side by side, each in a kernel of its own.

Leaves out: what happens inside one page (cells).
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from sphinx.errors import ExtensionError

from llmref.sphinxext.execution.cells import (
    CellClient,
    has_unannounced_error,
    refuse_what_is_hidden,
    run_cells,
    until_ready,
)
from llmref.sphinxext.execution.folders import KernelFolder
from llmref.sphinxext.execution.kernels import (
    KernelServer,
    can_fork,
    kernel_environment,
    new_manager,
)
from llmref.sphinxext.execution.store import Outputs


@dataclass
class Page:
    """A page to execute; `seconds` and `cell_cpu_seconds` are filled in when it has run."""

    docname: str
    key: str
    notebook: NotebookNode
    folder: Path
    seconds: float = 0.0
    cell_cpu_seconds: float = 0.0
    failed: bool = False
    outputs: Outputs = field(default_factory=list)


def run_pages(
    pages: list[Page],
    *,
    timeout: float,
    workers: int,
    python_path: str,
    settings: str,
    modules: Sequence[str],
    done: Callable[[Page], None],
) -> None:
    """Execute all pages, in the given order, `workers` at a time; call `done` after each.

    `settings` are IPython's; `modules` are imported once for all pages, where there is a fork.
    """

    def run(folder: str) -> None:
        profile = Path(folder) / "profile_default" / "ipython_kernel_config.py"
        profile.parent.mkdir()
        profile.write_text(settings, encoding="utf-8")
        environment = kernel_environment(python_path, IPYTHONDIR=folder)
        asyncio.run(_run_all(pages, folder, timeout, workers, environment, done))

    if not can_fork():
        with KernelFolder() as folder:
            run(folder.path)
        return
    server = KernelServer.current
    if server is not None and not server.serves(python_path, modules):
        server.close()
        server = None
    if server is None:
        server = KernelServer(python_path, modules)
    with server:
        run(server.folder)


async def _run_all(
    pages: list[Page],
    folder: str,
    timeout: float,
    workers: int,
    environment: dict[str, str],
    done: Callable[[Page], None],
) -> None:
    free = asyncio.Semaphore(workers)
    running: set[str] = set()

    async def run(number: int, page: Page) -> None:
        manager = new_manager(folder, number)
        async with free:
            running.add(page.docname)
            started = time.perf_counter()
            try:
                await _run(page, manager, timeout, environment)
            except BaseException:
                with contextlib.suppress(Exception):  # if the server is dead, so is the kernel
                    await _end(manager)
                raise
            page.seconds = time.perf_counter() - started
        done(page)
        running.remove(page.docname)
        await _end(manager)  # while the next page starts

    try:
        async with asyncio.TaskGroup() as group:
            for number, page in enumerate(pages):
                group.create_task(run(number, page))
    except ExceptionGroup as errors:
        suspects = sorted(running | {page.docname for page in pages if page.failed})
        why = errors.exceptions[0]
        raise ExtensionError(f"these pages ran, or had failed: {suspects}: {why!r}") from errors


async def _end(manager: AsyncKernelManager) -> None:
    """End a kernel, and what its cells have started."""
    started = []
    with contextlib.suppress(psutil.Error, AttributeError):  # it has ended, or never was
        if KernelServer.current is None:  # the server sees to that itself
            kernel: Any = manager.provisioner
            started = psutil.Process(kernel.pid).children(recursive=True)
    await manager.shutdown_kernel(now=True)
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


async def _run(
    page: Page, manager: AsyncKernelManager, timeout: float, environment: dict[str, str]
) -> None:
    await manager.start_kernel(cwd=str(page.folder), env=environment)
    client = CellClient(
        page.notebook,
        timeout=timeout,
        km=manager,
        resources={"metadata": {"path": str(page.folder)}},
    )
    client.reset_execution_trackers()
    client.kc = manager.client()
    # Without the thread of a heartbeat: the manager knows whether the kernel's process lives.
    client.kc.start_channels(hb=False)
    client.kc.allow_stdin = False
    code = [cell for cell in page.notebook.cells if cell.cell_type == "code"]
    try:
        await asyncio.wait_for(until_ready(client.kc), timeout=60)
        before = _cpu_seconds(manager)
        completed = await run_cells(client, page.notebook)
        page.cell_cpu_seconds = _cpu_seconds(manager) - before
        if completed:
            await refuse_what_is_hidden(client.kc, code)
    finally:
        client.kc.stop_channels()
    page.outputs = [cell.outputs for cell in code]
    page.failed = any(map(has_unannounced_error, code))


def _cpu_seconds(manager: Any) -> float:
    try:
        times = psutil.Process(manager.provisioner.pid).cpu_times()
    except psutil.NoSuchProcess:  # a cell has ended its kernel
        return 0.0
    return float(times.user + times.system)
