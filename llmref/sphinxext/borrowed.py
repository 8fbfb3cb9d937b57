"""What the machinery leans on and nobody has promised: private or undocumented parts of others.

One line each: where it comes from, and what we assume of it. tests/sphinxext/test_borrowed.py holds
a test of each assumption, under its name, so that an upgrade which breaks one fails at once; and it
fails if the code borrows something that is not listed here. What would break in silence (a pattern
that no longer matches the theme) is also a warning of the build: `expect_match`.
"""

import re

from sphinx.util import logging

logger = logging.getLogger(__name__)

BORROWED = {
    # Sphinx
    "sphinx.builders.html.StandaloneHTMLBuilder._css_files": "the style sheets of a builder",
    "sphinx.builders.html.StandaloneHTMLBuilder._static_dir": "where it puts static files",
    "sphinx.builders.html._assets": "a style sheet or script is rebuilt from its own attributes",
    "sphinx.builders.ParallelTasks": "the class that reads and writes with several processes",
    "sphinx.builders.Builder.write_documents": "writes all pages that are given, in whatever way",
    "sphinx.util.logging.is_suppressed_warning": "whether a warning does not count",
    "sphinx.util.parallel.ParallelTasks._process": "what a worker does, with a pipe to the build",
    "sphinx.util.parallel.ParallelTasks._join_one": "takes over from one worker that has ended",
    "sphinx.util.parallel.ParallelTasks._precvs": "the reading ends of the pipes, by worker",
    "sphinx.util.parallel.ParallelTasks._precvs_waiting": "the same of workers not yet started",
    "sphinx.util.parallel.ParallelTasks._procs": "the processes, by worker",
    "sphinx.application.Sphinx.parallel": "how many processes read may change between builds",
    "sphinx.search.IndexBuilder._mapping": "the pages of each word; a word without pages may go",
    "sphinx.search.IndexBuilder._title_mapping": "the same for words of titles",
    "sphinx.search.IndexBuilder._objtypes": "the number of each kind of object",
    "sphinx.search.IndexBuilder.get_objects": "(page, kind, priority, anchor, name), by prefix",
    # MyST's parser
    "myst_parser.config.main.MdParserConfig": "the settings of a parser, at env.myst_config",
    "myst_parser.parsers.mdit.create_md_parser": "the parser of pages, with such settings",
    "mdit_py_plugins.myst_role.index.myst_role": "pushes one token, at whose end it leaves off",
    # myst-nb
    "myst_nb.core.read.is_myst_markdown_notebook": "whether a text is an executed page",
    "myst_nb.core.read.read_myst_markdown_notebook": "its cells, and the line before each of them",
    "myst_nb.core.render.MimeData": "an output's type, content, and line (one too many)",
    "myst_nb.core.render.NbElementRenderer": "render_error gets the cell's metadata and its line",
    "myst_nb.core.render.NbElementRenderer.render_image": "names a picture by its digest",
    "myst_nb.core.render.strip_ansi": "takes the colours out of a traceback",
    "myst_nb.sphinx_.HideCodeCellNode": "a hidden cell, and how its fold is written",
    "myst_nb.sphinx_.Parser": "reads through env.mystnb_config.custom_formats, given as a copy",
    "myst_nb.sphinx_ext.add_global_html_resources": "copies mystnb.css into _static",
    "jupyter_execute": "myst-nb writes each executed page there, beside the output folder",
    # themes
    "pydata_sphinx_theme.icons": "a rule for each icon in its style sheet, which we take out",
    "pydata_sphinx_theme.light": "colours of html[data-theme=light], which we make the default",
    "pydata_sphinx_theme.scripts": "scripts among the style sheets of its head, which we take out",
    "pydata_sphinx_theme.tab_stops": "one expression of its script makes wide boxes reachable",
    "sphinx_design.icons.get_octicon_data": "the shape of an icon, by name and height",
    # Jupyter
    "ipykernel.kernelapp.IPKernelApp.parent_handle": "a kernel ends when this process is gone",
    "jupyter_client.launcher.launch_kernel": "starts an ordinary kernel",
    "jupyter_client.provisioning.local_provisioner.LocalProvisioner._scrub_kwargs": (
        "takes out what only a provisioner understands"
    ),
    "nbclient.client.NotebookClient.kc": "the client takes the channels that we have opened",
}


def expect_match(pattern: re.Pattern[str], replacement: str, text: str, borrowed: str) -> str:
    """Replace in somebody else's text, and warn if the pattern no longer matches anything."""
    if borrowed not in BORROWED:
        raise KeyError(borrowed)
    written, found = pattern.subn(replacement, text)
    if not found:
        logger.warning(
            "%s has changed (%s): nothing matches", borrowed, BORROWED[borrowed], type="llmref"
        )
    return written
