"""Executes the cells of one page in its kernel, and decides what of their outputs is an error.

A failing cell does not stop its page. One that exceeds its time, or takes its kernel down, ends it;
one that prints without end is cut off. A page that draws random numbers which it has not seeded
fails, for elsewhere it would show others; so does a cell with a check that it does not show, and a
check that fails, whatever the cell announces.
Leaves out: only the global generators of Python, numpy and torch are watched, and only where
kernels can be forked.
"""

import ast
import asyncio
import queue
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from llmref.records import CHECK_ERRORS

# Of one cell; the largest of the site has a fifth of it.
_MOST_BYTES = 4_000_000
# What the server watches: the global generators from which unseeded numbers were drawn.
_DREW_UNSEEDED = """[name for name, generator in
__import__("random").__dict__.get("llmref_watched", {}).items() if generator.drawn()]"""
_ADVICE = (
    "this page draws from the global generator of {}, which no cell has seeded before: "
    "seed it in the first cell, or draw from a generator of your own"
)
# The results of checks that passed and were not shown.
_UNSHOWN = """(lambda check: check.unshown() if check else [])(
__import__("sys").modules.get("llmref.verify.check"))"""
_LOST = "a check of {} is not shown, so it does not count: make it the last expression of its cell"


class CellClient(NotebookClient):
    """nbclient's, for cells whose outputs are the same in every build and not too long."""

    def __init__(self, notebook: NotebookNode, *, timeout: float, **traits: Any) -> None:
        super().__init__(
            notebook,
            timeout=timeout,
            allow_errors=True,
            record_timing=False,  # times differ in every build
            # How a stream is cut into messages differs too.
            coalesce_streams=True,
            # Else a slow machine would leave out what arrives late, and say nothing.
            raise_on_iopub_timeout=True,
            iopub_timeout=max(1, round(timeout)),
            **traits,
        )
        self._bytes: dict[int, int] = {}

    def output(
        self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str | None, cell_index: int
    ) -> NotebookNode | None:
        """Keep one output, up to the limit, and count the rest."""
        shown = [msg["content"].get("text", ""), *msg["content"].get("data", {}).values()]
        size = sum(len(str(part)) for part in shown)
        self._bytes[cell_index] = self._bytes.get(cell_index, 0) + size
        if self._bytes[cell_index] > _MOST_BYTES and size:
            return None
        kept: NotebookNode | None = super().output(outs, msg, display_id, cell_index)
        return kept

    async def run(self, cell: NotebookNode, index: int) -> bool:
        """Execute a cell; return whether the kernel can go on."""
        try:
            await self.async_execute_cell(cell, index, execution_count=self.code_cells_executed + 1)
        except (CellTimeoutError, DeadKernelError) as error:
            name = type(error).__name__
            message = str(error).strip().splitlines()[0] if str(error).strip() else name
            if isinstance(error, CellTimeoutError):
                message = f"the cell did not end within {self.timeout:g} s"
            cell.outputs.append(_error(name, message))
            return False
        if (size := self._bytes.get(index, 0)) > _MOST_BYTES:
            message = f"the cell put out {size:,} bytes, and {_MOST_BYTES:,} is the most"
            cell.outputs = [_error("OutputTooLongError", message)]
        return True


async def run_cells(client: CellClient, notebook: NotebookNode) -> bool:
    """Execute the cells; return whether the kernel has come to the end of the page."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and not await client.run(cell, index):
            return False
    return True


async def until_ready(channels: AsyncKernelClient) -> None:
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


async def refuse_what_is_hidden(channels: AsyncKernelClient, code: list[NotebookNode]) -> None:
    """Add errors to the last cell, if the page drew unseeded numbers or made checks in vain."""
    questions = ((_DREW_UNSEEDED, "Unseeded", _ADVICE), (_UNSHOWN, "UnshownCheck", _LOST))
    for question, name, advice in questions:
        found = await asyncio.wait_for(_evaluate(channels, question), timeout=60)
        for cell in code[-1:]:
            cell.outputs += [_error(f"{name}Error", advice.format(it)) for it in found]


async def _evaluate(channels: AsyncKernelClient, expression: str) -> Any:
    """Return what an expression is in the kernel, and leave no trace there."""
    request = channels.execute("", silent=True, user_expressions={"it": expression})
    while True:
        reply = await channels.get_shell_msg()
        if reply["parent_header"].get("msg_id") == request:
            return ast.literal_eval(
                reply["content"]["user_expressions"]["it"]["data"]["text/plain"]
            )


def has_unannounced_error(cell: NotebookNode) -> bool:
    """Whether the cell raised an error that the tag raises-exception does not announce."""
    announced = _announces_error(cell)
    return any(
        output.output_type == "error" and not (announced and may_be_announced(output.ename))
        for output in cell.outputs
    )


def may_be_announced(name: str) -> bool:
    """Whether the tag raises-exception can announce an error: that of a check counts anyway."""
    return name not in CHECK_ERRORS


def _announces_error(cell: NotebookNode) -> bool:
    return "raises-exception" in cell.metadata.get("tags", [])


def _error(name: str, message: str) -> NotebookNode:
    return NotebookNode({"output_type": "error", "ename": name, "evalue": message, "traceback": []})
