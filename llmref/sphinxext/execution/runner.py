"""Executes pages side by side, each in a kernel of its own, and keeps every error.

A failing cell does not stop its page: the others run too, so that one build shows all failures.
A cell that exceeds its time, or takes its kernel down, ends the page with an error in that cell.
A page that draws random numbers which it has not seeded fails: elsewhere it would show others.
Leaves out: only torch's global generator is watched, and only where kernels can be forked.
"""

import asyncio
import queue
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from llmref.sphinxext.execution.kernels import (
    UNSEEDED,
    KernelServer,
    can_fork,
    kernel_environment,
    new_manager,
)
from llmref.sphinxext.execution.store import Outputs

# Whether torch's generator still has the seed of the server, and has moved on from there.
_DREW_UNSEEDED = f"""(lambda torch: torch is not None and torch.initial_seed() == {UNSEEDED} and not
torch.equal(torch.get_rng_state(), torch.Generator().manual_seed({UNSEEDED}).get_state())
)(__import__("sys").modules.get("torch"))"""
_ADVICE = (
    "this page draws from torch's global generator, which no cell seeds: "
    "call torch.manual_seed in its first cell, or draw from a torch.Generator"
)


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
    profile: str,
    modules: Sequence[str],
    done: Callable[[Page], None],
) -> None:
    """Execute all pages, in the given order, `workers` at a time; call `done` after each.

    `profile` is the folder of IPython's settings; `modules` are imported once for all pages, where
    kernels can be forked.
    """
    environment = kernel_environment(python_path, IPYTHONDIR=profile)
    if not can_fork():
        with tempfile.TemporaryDirectory(prefix="llmref-") as folder:
            asyncio.run(_run_all(pages, folder, timeout, workers, environment, done))
        return
    server = KernelServer.current
    if server is not None and not server.serves(python_path, modules):
        server.close()
        server = None
    if server is None:
        server = KernelServer(python_path, modules)
    with server:
        asyncio.run(_run_all(pages, server.folder, timeout, workers, environment, done))


async def _run_all(
    pages: list[Page],
    folder: str,
    timeout: float,
    workers: int,
    environment: dict[str, str],
    done: Callable[[Page], None],
) -> None:
    free = asyncio.Semaphore(workers)

    async def run(number: int, page: Page) -> None:
        manager = new_manager(folder, number)
        async with free:
            started = time.perf_counter()
            try:
                await _run(page, manager, timeout, environment)
            except BaseException:
                await manager.shutdown_kernel(now=True)
                raise
            page.seconds = time.perf_counter() - started
        done(page)
        await manager.shutdown_kernel(now=True)  # while the next page starts

    async with asyncio.TaskGroup() as group:
        for number, page in enumerate(pages):
            group.create_task(run(number, page))


async def _run(
    page: Page, manager: AsyncKernelManager, timeout: float, environment: dict[str, str]
) -> None:
    await manager.start_kernel(cwd=str(page.folder), env=environment)
    client = NotebookClient(
        page.notebook,
        km=manager,
        timeout=timeout,
        allow_errors=True,
        record_timing=False,  # times differ in every build
        resources={"metadata": {"path": str(page.folder)}},
    )
    client.reset_execution_trackers()
    client.kc = manager.client()
    client.kc.start_channels()
    client.kc.allow_stdin = False
    try:
        await asyncio.wait_for(_until_ready(client.kc), timeout=60)
        before = _cpu_seconds(manager)
        completed = await _run_cells(client, page)
        page.cell_cpu_seconds = _cpu_seconds(manager) - before
        drew = await asyncio.wait_for(_evaluate(client.kc, _DREW_UNSEEDED), 60) if completed else ""
    finally:
        client.kc.stop_channels()
    code = [cell for cell in page.notebook.cells if cell.cell_type == "code"]
    if drew == "True":
        # In the last cell whose errors are shown.
        for cell in [cell for cell in code if not _announces_error(cell)][-1:]:
            cell.outputs.append(_error("UnseededError", _ADVICE))
    page.outputs = [cell.outputs for cell in code]
    page.failed = any(map(has_unannounced_error, code))


async def _until_ready(channels: AsyncKernelClient) -> None:
    """Wait until the kernel answers, and what it publishes arrives.

    The client's own wait_for_ready takes 0.2 s more, and the client's own start of a kernel takes
    over the build's signal handlers.
    """
    while True:
        request = channels.kernel_info()
        await channels.get_shell_msg()
        try:
            while True:
                message = await channels.get_iopub_msg(timeout=0.1)
                ended = message["content"].get("execution_state") == "idle"
                if ended and message["parent_header"].get("msg_id") == request:
                    return
        except queue.Empty:
            continue  # published before the subscription: ask again


async def _run_cells(client: NotebookClient, page: Page) -> bool:
    """Execute the cells; return whether the kernel has come to the end of the page."""
    for index, cell in enumerate(page.notebook.cells):
        if cell.cell_type != "code":
            continue
        try:
            await client.async_execute_cell(
                cell, index, execution_count=client.code_cells_executed + 1
            )
        except (CellTimeoutError, DeadKernelError) as error:
            name = type(error).__name__
            message = str(error).strip().splitlines()[0] if str(error).strip() else name
            if isinstance(error, CellTimeoutError):
                message = f"the cell did not end within {client.timeout:g} s"
            cell.outputs.append(_error(name, message))
            return False
    return True


async def _evaluate(channels: AsyncKernelClient, expression: str) -> str:
    """Return what an expression is in the kernel, as text, and leave no trace there."""
    request = channels.execute("", silent=True, user_expressions={"it": expression})
    while True:
        reply = await channels.get_shell_msg()
        if reply["parent_header"].get("msg_id") == request:
            return str(reply["content"]["user_expressions"]["it"]["data"]["text/plain"])


def _error(name: str, message: str) -> NotebookNode:
    return NotebookNode({"output_type": "error", "ename": name, "evalue": message, "traceback": []})


def has_unannounced_error(cell: NotebookNode) -> bool:
    """Whether the cell raised an error without the tag raises-exception."""
    return not _announces_error(cell) and any(
        output.output_type == "error" for output in cell.outputs
    )


def _announces_error(cell: NotebookNode) -> bool:
    return "raises-exception" in cell.metadata.get("tags", [])


def _cpu_seconds(manager: Any) -> float:
    try:
        times = psutil.Process(manager.provisioner.pid).cpu_times()
    except psutil.NoSuchProcess:  # a cell has ended its kernel
        return 0.0
    return float(times.user + times.system)
