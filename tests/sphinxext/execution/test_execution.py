"""How pages run: fresh, isolated, side by side, nothing left over, and the same in every build."""

import json
import os
import re
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.small_site import Built, Site, tree

CELL = "\n```{{code-cell}} python\n{}\n```\n"
DRAWN = "---\nmystnb:\n  image:\n    alt: a line\n---\n"  # options of a cell that draws


def page(title: str, *cells: str) -> str:
    return f"# {title}\n" + "".join(CELL.format(cell) for cell in cells)


def index(*pages: str) -> str:
    return "# Index\n\n```{toctree}\n" + "\n".join(pages) + "\n```\n"


def ran(status: str) -> list[str]:
    """The pages that a build executed, from what it says while it runs them."""
    lines = [line for line in status.splitlines() if line.startswith("running pages... [")]
    return sorted(line.split("] ")[1].split(",")[0] for line in lines)


# As on Windows and macOS; for cold builds, which have not looked yet.
NO_FORK = "from llmref.sphinxext.execution import kernels\nkernels.can_fork = lambda: False"


@pytest.fixture
def three(site: Site) -> Site:
    return fill(site)


@pytest.fixture(scope="module")
def three_kept(module_site: Callable[[], Site]) -> tuple[Site, Built]:
    site = fill(module_site())
    first = site.build()
    site.keep()
    return site, first


@pytest.fixture
def three_built(three_kept: tuple[Site, Built]) -> Site:
    return three_kept[0].put_back()


def fill(site: Site) -> Site:
    """Two pages that reach different modules, and one without code."""
    site.use_own_package()
    site.write("package/llmref/deep.py", "VALUE = 11111\n")
    site.write("package/llmref/shallow.py", "from llmref.deep import VALUE\n")
    site.write("package/llmref/other.py", "VALUE = 33333\n")
    site.write("index.md", index("a", "b", "c"))
    site.write("a.md", page("A", "from llmref import shallow\nshallow.VALUE"), executed=True)
    site.write("b.md", page("B", "from llmref import other\nother.VALUE"), executed=True)
    site.write("c.md", "# C\n\nProse.\n")
    return site


def test_a_rebuild_with_no_change_executes_and_reads_nothing(
    three_kept: tuple[Site, Built], three_built: Site
) -> None:
    assert ran(three_kept[1].status) == ["a", "b"]
    second = three_built.build()
    assert ran(second.status) == []
    assert "0 added, 0 changed, 0 removed" in second.status


def test_the_number_on_a_page_follows_every_module_that_it_reaches(three_built: Site) -> None:
    """The stock pipeline shows the new source beside the old number, and is green."""
    assert "11111" in (three_built.root / "_build/html/a.html").read_text(encoding="utf-8")
    three_built.write("package/llmref/deep.py", "VALUE = 22222\n")
    built = three_built.build()
    assert (built.code, ran(built.status)) == (0, ["a"])
    assert "22222" in built.page("a")
    assert "11111" not in built.page("a")


def test_a_cell_with_an_ipython_command_depends_on_the_whole_package(site: Site) -> None:
    site.use_own_package()
    site.write("package/llmref/rl.py", "value = 1\n")
    site.write(
        "index.md", page("Index", "%precision 3\nfrom llmref import rl\nrl.value"), executed=True
    )
    assert ">1<" in site.build().page("index").replace("\n", "")
    site.write("package/llmref/rl.py", "value = 25\n")
    built = site.build()
    assert built.code == 0
    assert "25" in built.page("index")


def test_an_edit_that_is_taken_back_executes_nothing(three_built: Site) -> None:
    three_built.write("package/llmref/deep.py", "VALUE = 22222\n")
    three_built.build()
    three_built.write("package/llmref/deep.py", "VALUE = 11111\n")
    built = three_built.build()
    assert ran(built.status) == []
    assert "11111" in built.page("a")


def test_prose_executes_nothing_and_code_executes_its_page_alone(three_built: Site) -> None:
    page = three_built.root / "a.md"
    source = page.read_text(encoding="utf-8")
    page.write_text(source + "\nMore prose.\n", encoding="utf-8")
    built = three_built.build()
    assert ran(built.status) == []
    assert "More prose." in built.page("a")
    page.write_text(source.replace("shallow.VALUE", "-shallow.VALUE"), encoding="utf-8")
    built = three_built.build()
    assert ran(built.status) == ["a"]
    assert "-11111" in built.page("a")


def test_a_page_that_is_edited_while_it_runs_is_refused_and_then_read_again(site: Site) -> None:
    edit = """
        import pathlib
        page = pathlib.Path("page.md")
        page.write_text(page.read_text().replace("x = 1", "x = 2"))
    """
    site.write("index.md", "# Index\n\n```{toctree}\npage\n```\n")
    cells = f"```{{code-cell}} python\n{textwrap.dedent(edit)}\n```\n\n"
    cells += "```{code-cell} python\nx = 1\nprint('value', x)\n```\n"
    site.write("page.md", "# Page\n\n" + cells, executed=True)
    built = site.build()
    assert built.code != 0
    assert "edited while the site was being built; build it again" in built.warnings
    again = site.build()
    assert (again.code, again.warnings) == (0, "")
    assert "value 2" in again.page("page")


def test_a_module_that_is_edited_while_a_page_runs_is_noticed_even_if_it_is_taken_back(
    site: Site,
) -> None:
    site.use_own_package()
    site.write("package/llmref/rl.py", "value = 1\n")
    edit = """
        import pathlib
        module, again = pathlib.Path("package/llmref/rl.py"), pathlib.Path("again")
        module.write_text(f"value = {2 - again.exists()}\\n")
        again.touch()
        from llmref.rl import value
        print("value", value)
    """
    site.write("index.md", page("Index", textwrap.dedent(edit)), executed=True)
    built = site.build()
    assert built.code != 0
    assert "a module was edited while this page ran; build it again" in built.warnings
    site.write("package/llmref/rl.py", "value = 1\n")
    again = site.build()
    assert (again.code, again.warnings) == (0, "")
    assert "value 1" in again.page("index")


def test_several_processes_on_an_empty_cache(three: Site) -> None:
    """The stock pipeline fails here: its readers create one database at the same time."""
    built = three.build("-j", "2")
    assert (built.code, built.warnings) == (0, "")
    assert ran(built.status) == ["a", "b"]


def test_new_pages_and_those_that_took_longest_run_first(site: Site) -> None:
    """Else a long page that comes last would leave the other cores idle."""
    names = ["brief", "long", "middling", "new"]
    cache = site.root / "cache"
    cache.mkdir()
    taken = {"brief": [1.0, 1.0], "long": [9.0, 1.0], "middling": [5.0, 1.0]}
    (cache / "times.json").write_text(json.dumps(taken), encoding="utf-8")
    site.configure(f"llmref_cache = {str(cache)!r}")
    site.write("index.md", index(*names))
    for name in names:
        site.write(f"{name}.md", page(name, f"print({name!r})"), executed=True)
    built = site.build()
    assert built.code == 0
    lines = re.findall(r"running pages\.\.\. \[ *(\d+)%\] (\w+), \d+\.\d s", built.status)
    assert lines == [("25", "new"), ("50", "long"), ("75", "middling"), ("100", "brief")]
    assert json.loads((cache / "times.json").read_text())["brief"] != taken["brief"]


def test_a_cell_has_one_number_in_the_warning_and_in_its_traceback(site: Site) -> None:
    """Prose between cells does not count."""
    cells = ["print(1)", "1 / 0"]
    body = "".join(f"Prose.\n\n```{{code-cell}} python\n{cell}\n```\n\n" for cell in cells)
    site.write("index.md", f"# I\n\n{body}", executed=True)
    warnings = site.build().warnings
    assert "cell 2 raised ZeroDivisionError" in warnings
    assert "In[2], line 1" in warnings


@pytest.mark.parametrize("name", ["$HOME and ~", '资料 it\'s "q" #1'])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    """IPython would expand '$HOME' in the path of its settings, and draw other pictures."""
    site = Site(tmp_path / name)
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    site.write("index.md", page("I", DRAWN + draw), executed=True)
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    assert len(list((built.html / "_images").glob("*.svg"))) == 1


def test_ordinary_kernels_serve_where_processes_cannot_be_forked(site: Site) -> None:
    """They have loaded nothing beforehand; all else is the same."""
    site.configure(f"llmref_preload = ('sympy',)\n{NO_FORK}")
    site.write("index.md", index("a", "b"))
    loaded = "import sys\nprint('sympy' in sys.modules, 6 * 7)"
    figure = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    site.write("a.md", page("A", loaded, DRAWN + figure), executed=True)
    site.write("b.md", page("B", "1 / 0"), executed=True)
    built = site.build_cold()
    assert built.code != 0
    line = site.line("b.md", "1 / 0")
    assert f"b.md:{line}: WARNING: cell 1 raised ZeroDivisionError" in built.warnings
    assert built.warnings.count("WARNING") == 1
    assert "False 42" in built.page("a")
    assert len(list((built.html / "_images").glob("*.svg"))) == 1
    assert left_over(site) == []


def test_two_builds_at_once_do_not_disturb_each_other(three: Site) -> None:
    three.configure(f"llmref_cache = {str(three.root / 'cache')!r}")
    command = three.command()
    others = [
        subprocess.Popen(
            [*command[:-1], str(three.root / f"_build/html{n}"), "-d", f"_build/doctrees{n}"],
            cwd=three.root,
            stdout=subprocess.DEVNULL,
        )
        for n in range(3)
    ]
    assert [process.wait() for process in others] == [0, 0, 0]
    for n in range(3):
        assert "11111" in (three.root / f"_build/html{n}/a.html").read_text(encoding="utf-8")
    assert not list((three.root / "cache").glob("*.tmp"))


def test_nothing_that_one_page_does_reaches_another(site: Site) -> None:
    """One worker runs the pages one after the other, so any trace would be seen."""
    disturb = """
import os, random, sys
import torch, sympy
import matplotlib.pyplot as plt
torch.manual_seed(12345); torch.set_default_dtype(torch.float64); torch.set_num_threads(3)
plt.rcParams["figure.figsize"] = (1.0, 1.0); random.seed(1)
sympy.Symbol.trace = "left"; torch.trace_left = True; os.environ["TRACE_LEFT"] = "1"
sys.path.append("trace-left"); os.chdir("/"); print("disturbed")"""
    look = """
import os, sys
import torch, sympy
import matplotlib.pyplot as plt
print(torch.initial_seed() != 12345, torch.get_default_dtype(), torch.get_num_threads() != 3)
print(plt.rcParams["figure.figsize"] != [1.0, 1.0], hasattr(sympy.Symbol, "trace"))
print(hasattr(torch, "trace_left"), "TRACE_LEFT" in os.environ, "trace-left" in sys.path)
print(os.path.basename(os.getcwd()), "llmref" in sys.modules, "sphinx" in sys.modules)"""
    site.configure("llmref_preload = ('torch', 'sympy', 'matplotlib.pyplot')")
    names = [f"p{n}" for n in range(6)]
    site.write("index.md", index(*names))
    for n, name in enumerate(names):
        site.write(f"{name}.md", page(name, look if n % 2 else disturb), executed=True)
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    for name in names[1::2]:
        shown = built.page(name).split("output stream")[1].split("</pre>")[0]
        text = " ".join(shown.split(">")[-1].split())
        assert "True torch.float32 True True False False False False site False False" in text


def test_a_page_that_draws_unseeded_numbers_is_refused(site: Site) -> None:
    """It would show other numbers in its reader's kernel, where a check may fail."""
    site.configure("llmref_preload = ('torch',)")
    site.write("index.md", index("unseeded", "layer", "seeded", "own"))
    start = "import torch\n"
    site.write(
        "unseeded.md",
        page("U", start + "torch.rand(1) < 2", "1 + 1", ":tags: [raises-exception]\n1 / 0"),
        executed=True,
    )
    site.write("layer.md", page("L", start + "torch.nn.Linear(2, 2).bias.shape"), executed=True)
    seeded = start + "torch.manual_seed(0); torch.rand(1)"
    site.write("seeded.md", page("S", seeded), executed=True)
    own = start + "torch.rand(1, generator=torch.Generator().manual_seed(0))"
    site.write("own.md", page("O", own), executed=True)
    built = site.build()
    assert built.code == 1
    refused = [line for line in built.warnings.splitlines() if "UnseededError" in line]
    places = [Path(line.split(": ")[0]).name for line in refused]
    last_cells = {"layer.md": "import torch", "unseeded.md": ":tags: [raises-exception]"}
    assert sorted(places) == [f"{name}:{site.line(name, it)}" for name, it in last_cells.items()]


DRAWS = [
    ("import random\nrandom.random() < 2", "random"),
    ("import numpy\nnumpy.random.rand() < 2", "numpy.random"),
    ("import random\nrandom.seed()\nrandom.random() < 2", "random"),
    ("import torch\nx = torch.rand(1)\ntorch.manual_seed(0)\ntorch.rand(1) < 2", "torch"),
    ("import numpy\nx = numpy.random.rand()\nnumpy.random.seed(0)", "numpy.random"),
    ("import random\nrandom.seed(3)\nrandom.random() < 2", ""),
    ("import numpy\nnumpy.random.seed(seed=3)\nnumpy.random.rand() < 2", ""),
    ("import numpy\nnumpy.random.default_rng(0).random() < 2", ""),
    ("import torch\ntorch.random.manual_seed(0)\ntorch.rand(1) < 2", ""),
    ("import torch\ntorch.manual_seed(0)\nx = torch.rand(1)\ntorch.manual_seed(1)", ""),
]


def test_every_global_generator_is_seeded_before_the_first_draw(site: Site) -> None:
    site.configure("llmref_preload = ('numpy', 'torch')")
    names = [f"page{number}" for number in range(len(DRAWS))]
    site.write("index.md", index(*names))
    for name, (code, _) in zip(names, DRAWS, strict=True):
        site.write(f"{name}.md", page(name, code), executed=True)
    warnings = [line for line in site.build().warnings.splitlines() if "UnseededError" in line]
    refused = {Path(line.split(":")[0]).stem: line for line in warnings if ".md:" in line}
    assert set(refused) == {name for name, (_, source) in zip(names, DRAWS, strict=True) if source}
    for name, (_, source) in zip(names, DRAWS, strict=True):
        assert (
            f"from the global generator of {source}, which" in refused.get(name, "") or not source
        )


def test_figures_are_drawn_inline_in_a_forked_kernel(site: Site) -> None:
    site.configure("llmref_preload = ('matplotlib.pyplot',)")
    first = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    second = "plt.plot([3])\nplt.show()"
    site.write("index.md", page("P", DRAWN + first, DRAWN + second), executed=True)
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    assert len(list((built.html / "_images").glob("*.svg"))) == 2


def test_a_page_that_kills_its_kernel_is_reported_and_the_others_run(site: Site) -> None:
    site.write("index.md", index("dead", "alive"))
    site.write("dead.md", page("D", "1", "import os\nos._exit(3)", "2"), executed=True)
    site.write("alive.md", page("A", "print(6 * 7)"), executed=True)
    built = site.build()
    assert built.code != 0
    line = site.line("dead.md", "import os")
    assert f"dead.md:{line}: WARNING: cell 2 raised DeadKernelError" in built.warnings
    assert "42" in built.page("alive")


def test_a_hung_cell_is_stopped_at_its_timeout_and_reported(site: Site) -> None:
    site.configure("llmref_cell_timeout = 2")
    hung = "import time\nwhile True:\n    time.sleep(0.1)"
    site.write("index.md", page("H", "1", hung, "2"), executed=True)
    started = time.monotonic()
    built = site.build()
    assert built.code != 0
    assert "CellTimeoutError: the cell did not end within 2 s" in built.warnings
    assert f"index.md:{site.line('index.md', 'import time')}: WARNING" in built.warnings
    assert time.monotonic() - started < 40
    assert left_over(site) == []


def left_over(site: Site) -> list[str]:
    """Command lines of processes that still work for the site (its folder is their TMPDIR)."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(site.root):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def wait_until(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("kernels", ["", NO_FORK], ids=["forked", "ordinary"])
def test_no_process_and_no_wrong_entry_outlives_an_interrupted_build(
    site: Site, kernels: str, number: signal.Signals
) -> None:
    site.configure(kernels)
    flag = site.root / "running"
    slow = f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\ntime.sleep(600)\nprint(1)"
    site.write("index.md", index("fast", "slow"))
    site.write("fast.md", page("F", "print(6 * 7)"), executed=True)
    site.write("slow.md", page("S", slow), executed=True)
    cache = site.root / "cache"
    site.configure(f"llmref_cache = {str(cache)!r}\nllmref_cell_timeout = 900")
    process = site.start()
    assert wait_until(flag.exists, 60)
    assert left_over(site)
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert wait_until(lambda: not left_over(site), 10), left_over(site)
    if not kernels or number == signal.SIGINT:  # else nothing is left that could remove it
        assert not list(site.root.glob("llmref-*")), "the folder of the sockets is left"
    # What is in the cache is complete, and the slow page is not.
    site.write("slow.md", page("S", "print(1)"), executed=True)
    built = site.build_cold() if kernels else site.build()
    assert (built.code, built.warnings) == (0, "")
    assert "slow" in ran(built.status)
    assert "42" in built.page("fast")
    assert not list(site.root.glob("llmref-*")), "a later build leaves the folder there"


def test_two_clean_builds_are_byte_identical(three: Site) -> None:
    drawing = """
import matplotlib.pyplot as plt
plt.plot([1, 2, 3]); plt.xlabel("x"); plt.show()"""
    three.write("c.md", page("C", DRAWN + drawing.strip(), "{'b', 'a', 'c', 'd'}"), executed=True)
    trees = []
    for _ in range(2):
        built = three.build_cold("-E", "-j", "2")
        assert built.code == 0
        trees.append(tree(built.html))
        subprocess.run(["rm", "-rf", str(three.root / "_build")], check=True)
    assert trees[0] == trees[1]
