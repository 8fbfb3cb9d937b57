"""No error of Sphinx's reading and writing processes is lost, and each names its page."""

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.small_site import Site

MANY = [f"p{n:02}" for n in range(24)]  # enough that Sphinx hands work out in several rounds
# A page that says the word goes wrong where the hook is called.
BREAK = """
import os, signal, time, pathlib
def hurt(text):
    if "explode" in text:
        raise KeyError("hurt")
    if "killed" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in text:
        pathlib.Path("hanging").touch()
        time.sleep(600)
"""
READ = "def setup(app):\n    app.connect('source-read', lambda app, name, text: hurt(text[0]))"
WRITE = (
    "def setup(app):\n    app.connect('html-page-context', "
    "lambda app, name, template, context, tree: hurt(context.get('body', '')))"
)

RESOLVE = (
    "def setup(app):\n    app.connect('doctree-resolved', "
    "lambda app, tree, name: hurt(tree.astext()))"
)


def many_pages(site: Site, where: str, first: str, last: str = "") -> None:
    site.configure(BREAK + where)
    site.write("index.md", "# I\n\n```{toctree}\n" + "\n".join(MANY) + "\n```\n")
    for name in MANY:
        site.write(f"{name}.md", f"# {name}\n\nProse.\n")
    site.write(f"{MANY[3]}.md", f"# P\n\n{first}\n")
    site.write(f"{MANY[20]}.md", f"# P\n\n{last}\n")


@pytest.mark.parametrize("where", [READ, WRITE], ids=["reading", "writing"])
@pytest.mark.parametrize("what", ["explode", "killed"])
def test_a_worker_that_fails_ends_the_build(site: Site, where: str, what: str) -> None:
    """Sphinx alone would be green with most pages gone."""
    many_pages(site, where, what)
    built = site.build("-j", "3")
    assert built.code != 0
    said = r"p03\.md: .*hurt" if what == "explode" else "read or wrote pages was killed"
    assert re.search(said, built.warnings)


def test_a_worker_that_fails_while_others_get_work_ends_the_build(site: Site) -> None:
    """Then Sphinx would end all workers, and go on without them."""
    hook = (
        "exploded = pathlib.Path('exploded')\n"
        "def write(app, name, template, context, tree):\n"
        "    if 'explode' in context.get('body', ''):\n"
        "        exploded.touch()\n"
        "        raise KeyError('hurt')\n"
        "def wait(app, tree, name):\n"
        "    end = time.monotonic() + 60\n"
        "    while name == 'p20' and not exploded.exists() and time.monotonic() < end:\n"
        "        time.sleep(0.02)\n"
        "    time.sleep(0.5 * (name == 'p20'))\n"
        "def setup(app):\n"
        "    app.connect('html-page-context', write)\n"
        "    app.connect('doctree-resolved', wait)\n"
    )
    many_pages(site, hook, "explode")
    built = site.build("-j", "3")
    assert built.code != 0
    assert re.search(r"p03\.md: .*hurt", built.warnings)


@pytest.mark.parametrize(
    ("where", "options"),
    [(READ, []), (WRITE, []), (RESOLVE, []), (RESOLVE, ["-j", "3"])],
    ids=["reading", "writing", "resolving", "resolving beside workers"],
)
def test_a_page_that_breaks_the_build_is_named_without_workers_too(
    site: Site, where: str, options: list[str]
) -> None:
    many_pages(site, where, "explode")
    built = site.build(*options)
    assert built.code != 0
    said = r"p03\.md:1: ERROR: the build broke off at this page: .*hurt"
    assert re.search(said, built.warnings)


def test_a_build_that_breaks_off_after_the_last_page_blames_none(site: Site) -> None:
    site.configure(
        "def fail(app):\n    raise KeyError('hurt')\n"
        "def setup(app):\n    app.connect('html-collect-pages', fail)"
    )
    site.write("index.md", "# I\n")
    built = site.build()
    assert built.code != 0
    assert "hurt" in built.warnings
    assert "broke off" not in built.warnings


def test_a_build_that_breaks_off_does_not_wait_for_its_workers(site: Site) -> None:
    """Those have more to say than a pipe holds, and nobody reads it any more."""
    talk = (
        "from sphinx.util import logging\n"
        "kept = []\n"  # whoever keeps the exception keeps the pipes, too
        "def talk(app, name, template, context, tree):\n"
        "    logging.getLogger('talk').info('x' * 10**6)\n"
        "def resolved(app, tree, name):\n"
        "    if name == 'p20':\n"
        "        time.sleep(1)\n"
        "        raise KeyError('hurt')\n"
        "def setup(app):\n"
        "    app.connect('html-page-context', talk)\n"
        "    app.connect('doctree-resolved', resolved)\n"
        "    app.connect('build-finished', lambda app, error: kept.append(error))\n"
    )
    many_pages(site, talk, "")
    process = site.start("-j", "3")
    try:
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode not in (0, -signal.SIGKILL)


def test_workers_that_the_system_does_not_end_end_when_nobody_reads_them(site: Site) -> None:
    """As where it cannot end a process with its parent."""
    hook = (
        "from llmref.sphinxext.incremental import workers\n"
        "workers.die_with_parent = lambda *_: None\n"
        "from sphinx.util import logging\n"
        "def talk(app, name, template, context, tree):\n"
        "    if name != 'index':\n"  # which no worker writes
        "        logging.getLogger('talk').info('x' * 10**6)\n"
        "def resolved(app, tree, name):\n"
        "    if name == 'p20':\n"
        "        hurt('hang')\n"
        "def setup(app):\n"
        "    app.connect('html-page-context', talk)\n"
        "    app.connect('doctree-resolved', resolved)\n"
    )
    many_pages(site, hook, "")
    process = site.start("-j", "3")
    end = time.monotonic() + 60
    while not (site.root / "hanging").exists() and time.monotonic() < end:
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.kill()
    left = psutil.wait_procs(workers, timeout=20)[1]
    for worker in left:
        worker.kill()
    process.communicate(timeout=30)
    assert left == []


def test_pages_that_were_not_written_are_missed(site: Site) -> None:
    """Whatever the reason: here nothing is said of it at all."""
    many_pages(site, "", "", "")
    assert site.build_here().code == 0
    site.configure(
        "def lose(app):\n"
        "    write = app.builder.write_documents\n"
        "    app.builder.write_documents = lambda names: write(set(names) - {'p23', 'new'})\n"
        "def setup(app):\n    app.connect('builder-inited', lose, priority=1)"
    )
    site.write("p23.md", "# Edited\n")
    site.write("new.md", "---\norphan: true\n---\n# New\n")
    with pytest.raises(Exception, match=r"this is not written: new, p23$"):
        site.build_here()


@pytest.mark.parametrize("where", [READ, WRITE], ids=["reading", "writing"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_build(site: Site, where: str, number: signal.Signals) -> None:
    many_pages(site, where, "hang", "x" * 100)
    process = site.start("-j", "3")
    end = time.monotonic() + 60
    while not (site.root / "hanging").exists() and time.monotonic() < end:
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    assert Path(site.root / "hanging").exists()
