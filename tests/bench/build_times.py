"""Measures how long the site takes to build, against stock myst-nb, and writes the table.

Run by `make bench-build`. All builds work on a copy, in one run; every figure is the median of
three, but for the site of 200 pages, which is built once.
"""

import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from llmref.sphinxext import ROOMS
from llmref.sphinxext.execution.kernels import PRELOADED, KernelServer

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "_build_times.md"
CORES = os.cpu_count() or 1
_OURS = [f"llmref.sphinxext.{name}" for name in ROOMS if name not in ("execution", "incremental")]
# The same extensions, but for what executes pages and what shortens a build.
STOCK = [
    "-Dextensions="
    + ",".join(["myst_nb", "sphinx_copybutton", "sphinx_design", "sphinxcontrib.bibtex", *_OURS]),
    "-Dnb_execution_mode=force",
    "-Dnb_execution_timeout=120",
]
CONF = """
project = "generated"
extensions = ["myst_nb", "sphinx_copybutton", "sphinx_design", "sphinxcontrib.bibtex",
              "llmref.sphinxext"]
bibtex_bibfiles = []
html_theme = "basic"
html_math_renderer = "katex"
exclude_patterns = ["_build"]
"""
PAGE = """---
file_format: mystnb
kernelspec:
  name: python3
---
# Page {n}

```{{code-cell}} python
import matplotlib.pyplot as plt
import sympy
import torch
print({value})
```
"""


def build(folder: Path, *options: str, source: str = "docs") -> tuple[float, float]:
    """Build and return seconds and the peak of the memory of all its processes, in GB."""
    command = [sys.executable, "-m", "sphinx", "-q", "-c", ".", "-j", str(CORES), *options]
    started = time.perf_counter()
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        process = psutil.Popen([*command, source, "_build/html"], cwd=folder, stderr=file)
    peak = 0.0
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.2):
            try:
                family = [process, *process.children(recursive=True)]
                peak = max(peak, sum(p.memory_info().rss for p in family) / 1e9)
            except psutil.NoSuchProcess:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    stop.set()
    watcher.join()
    assert code == 0, log.read_text(encoding="utf-8")
    return seconds, peak


def median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(3))


def clear(folder: Path, *, cache: bool) -> None:
    shutil.rmtree(folder / "_build" / "html", ignore_errors=True)
    if cache:
        shutil.rmtree(folder / "_build" / "cache", ignore_errors=True)


def server_start() -> float:
    started = time.perf_counter()
    with KernelServer(modules=PRELOADED) as server:
        server.wait_until_ready()
        return time.perf_counter() - started


def real_site(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    for name in ("docs", "llmref"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("conf.py", "pyproject.toml", "CITATION.cff", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    # The landing page quotes a cell as our execution keeps it: stock has none to quote.
    landing = folder / "docs" / "index.md"
    without = re.sub(r"(?ms)^```\{showcase\}.*?^```\n", "", landing.read_text(encoding="utf-8"))
    landing.write_text(without, encoding="utf-8")
    peaks: dict[str, float] = {}

    def cold(*options: str) -> float:
        clear(folder, cache=True)
        seconds, peak = build(folder, *options)
        kind = "stock" if options else "ours"
        peaks[kind] = max(peak, peaks.get(kind, 0.0))
        return seconds

    def without_execution() -> float:
        clear(folder, cache=False)
        return build(folder)[0]

    stock, ours = median(lambda: cold(*STOCK)), median(cold)
    times = json.loads((folder / "_build" / "cache" / "times.json").read_text())
    floor = (
        median(server_start)
        + sum(cpu for _, cpu in times.values()) / CORES
        + median(without_execution)
    )
    rows.append(("cold build, stock myst-nb", f"{stock:.1f} s", ""))
    rows.append(("cold build", f"{ours:.1f} s", f"{ours / stock:.2f} of stock"))
    rows.append(
        (
            "the floor: server, cells' CPU, Sphinx",
            f"{floor:.1f} s",
            f"cold is {ours / floor:.2f} of it",
        )
    )
    rows.append(("rebuild with no change", f"{median(lambda: build(folder)[0]):.1f} s", ""))

    def edit(path: str, text: str) -> float:
        with (folder / path).open("a", encoding="utf-8") as file:
            file.write(text)
        return build(folder)[0]

    leaf = median(lambda: edit("llmref/functional/info_nce.py", "_edited = 1\n"))
    own = times["functional/info_nce"][0]
    rows.append(
        ("rebuild after editing one leaf module", f"{leaf:.1f} s", f"its page takes {own:.1f} s")
    )
    prose = median(lambda: edit("docs/attention/scaled_dot_product.md", "\nMore prose.\n"))
    rows.append(("rebuild after editing prose", f"{prose:.1f} s", ""))
    rows.append(
        ("peak memory of a cold build", f"{peaks['ours']:.1f} GB", f"stock {peaks['stock']:.1f} GB")
    )
    slowest = sorted(times.items(), key=lambda item: -item[1][1])[:10]
    listed = ", ".join(f"{page} {cpu:.1f} s" for page, (_, cpu) in slowest)
    rows.append(("CPU of the cells of the slowest pages", listed, ""))


def generated(folder: Path, pages: int) -> None:
    (folder / "conf.py").write_text(CONF, encoding="utf-8")
    names = "\n".join(f"p{n}" for n in range(pages))
    (folder / "index.md").write_text(f"# I\n\n```{{toctree}}\n{names}\n```\n", encoding="utf-8")
    edit_pages(folder, pages, 0)


def edit_pages(folder: Path, pages: int, value: int) -> None:
    for n in range(pages):
        (folder / f"p{n}.md").write_text(PAGE.format(n=n, value=value), encoding="utf-8")


def cost_of_a_page(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """Start, imports and stop: pages that do nothing else, 20 of them."""
    count = 20
    generated(folder, count)

    def clean(*options: str) -> float:
        clear(folder, cache=True)
        shutil.rmtree(folder / "_build", ignore_errors=True)
        return build(folder, *options, source=".")[0]

    off = median(lambda: clean(STOCK[0], "-Dnb_execution_mode=off"))
    stock = (median(lambda: clean(*STOCK)) - off) * CORES / count
    ours = (median(clean) - off - median(server_start)) * CORES / count
    rows.append(
        (
            "a page beyond its cells: start, imports, stop",
            f"{ours:.2f} s",
            f"stock {stock:.2f} s, {stock / ours:.1f} times as much",
        )
    )


def many_pages(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    generated(folder, 200)
    seconds = {200: build(folder, source=".")[0], 0: build(folder, source=".")[0]}
    for value, stale in enumerate((1, 20, 100), start=1):
        edit_pages(folder, stale, value)
        seconds[stale] = build(folder, source=".")[0]
    listed = ", ".join(f"{stale} stale: {seconds[stale]:.1f} s" for stale in sorted(seconds))
    rows.append(("200 generated pages", listed, ""))


def main() -> None:
    rows: list[tuple[str, str, str]] = []
    for measure in (real_site, cost_of_a_page, many_pages):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), rows)
            print(*rows, sep="\n")
    lines = [
        "| What | Time | Compared |",
        "|---|---|---|",
        *(f"| {a} | {b} | {c} |" for a, b, c in rows),
    ]
    note = f"Measured on {CORES} cores; medians of three builds in one run, the 200 pages once."
    TABLE.write_text("\n".join([*lines, "", note, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
