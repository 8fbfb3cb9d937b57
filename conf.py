"""Sphinx configuration. Sources are in docs/; `make html` builds them strictly."""

import os
import tomllib
from pathlib import Path

from llmref.hosting.citation import read_work

ROOT = Path(__file__).parent
_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_repository = "https://github.com/llmref/llmref"
# A hosted build links to the very commit it was made from.
_revision = os.environ.get("LLMREF_REVISION", "main")

project = "llmref"
author = ", ".join(read_work(ROOT / "CITATION.cff").authors)
copyright = f"{author}, text CC BY 4.0, code MIT"  # noqa: A001 (Sphinx's name)
version = release = _project["version"]

extensions = [
    "llmref.sphinxext.execution.startup",  # first: kernels start while the others are loaded
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "llmref.sphinxext",
]
exclude_patterns = ["_*"]
nitpicky = True

# Pages
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
llmref_cache = str(ROOT / "_build" / "cache")  # survives a failed build
nb_merge_streams = True
bibtex_bibfiles = ["docs/references.bib"]
llmref_result_ids = str(ROOT / "docs" / "result-ids.txt")
llmref_citation = str(ROOT / "CITATION.cff")
llmref_show_all = True  # a public function that no page shows is a warning
llmref_wheel_of = str(ROOT)  # stands beside the site, and notebooks install it
# In llms.txt
llmref_optional = ("agreement", "building", "contributing", "errata", "graph", "ledger", "trust")
llmref_source_url = f"{_repository}/blob/{_revision}/{{path}}#L{{first}}-L{{last}}"

# HTML
html_theme = "sphinx_book_theme"
html_title = "llmref"
html_static_path = ["docs/_static"]
html_extra_path = ["docs/results.schema.json"]
html_favicon = "docs/_static/favicon.svg"
html_math_renderer = "katex"  # llmref.sphinxext.web.katex: nothing is typeset in the browser
# Where the site is at home: permanent links are made from it, in local builds too.
html_baseurl = os.environ.get("LLMREF_BASE_URL", "https://llmref.github.io/llmref/")
html_copy_source = False  # the repository button leads to the source
html_show_sourcelink = False
llmref_description = _project["description"]  # of a preview, where a page has none of its own
llmref_unlisted = ("404",)
llmref_home = os.environ.get("LLMREF_BASE_URL", "")
# To quote a line, a search would fetch every page that it finds, and the hits would move.
html_show_search_summary = False
html_use_index = False  # it would be empty: results are listed in the ledger
html_domain_indices = False  # modules are listed in the API
html_theme_options = {
    "repository_url": _repository,
    "repository_branch": "main",
    "path_to_docs": "docs",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,
    "use_sidenotes": False,
    "primary_sidebar_end": ["versions.html"],
    "navbar_persistent": [],  # else the page has two search boxes
    "show_toc_level": 2,
}
html_context = {"default_mode": "auto"}
copybutton_exclude = ".linenos, .gp, .go"

# EPUB: `make epub`
epub_title = "llmref: the mathematics of large language models"
epub_description = _project["description"]
epub_identifier = _repository
epub_uid = "llmref"
epub_cover = ("_static/cover.png", "epub-cover.html")
epub_show_urls = "no"  # links can be followed
epub_tocscope = "includehidden"  # as the site, whose contents stand in the sidebar
epub_tocdepth = 2
epub_tocdup = False
llmref_epub_cover = "docs/_cover.png"
llmref_epub_left_out = ("404", "contributing", "graph")

# Links to other sites: `make linkcheck`. arXiv and publishers ask for few requests at a time.
linkcheck_workers = 2
linkcheck_timeout = 30
linkcheck_retries = 2
linkcheck_rate_limit_timeout = 120
linkcheck_ignore = [
    # Our own permanent links and lines of our own source: true once this commit is published.
    rf"{html_baseurl}.*",
    rf"{_repository}/.*",
    # What the build writes beside the pages.
    r"[^:]*\.(ipynb|md)$",
]
linkcheck_allowed_redirects = {
    r"https://doi\.org/.*": r".*",  # what a DOI is for
    r"https?://(www\.)?arxiv\.org/.*": r"https://arxiv\.org/.*",
}
# Their anchors are made by scripts, so a page without them says nothing.
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*", r"https://huggingface\.co/.*"]
