# make demo | install | static | test | test-all | audit | bench | lint | format | docs | lock | release

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
HOST   ?= 127.0.0.1
PORT   ?= 7860
STATIC ?= static
# A worker a core, each in one thread: more threads than cores only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --numprocesses auto --dist loadfile

.PHONY: help demo install static test test-all audit bench lint format docs lock release clean scripts

help:
	@echo "make demo      open the demo on http://$(HOST):$(PORT) (HOST= and PORT= change it)"
	@echo "make install   install all the rest: training, scoring, tests"
	@echo "make static    the page that reads films in the browser, in the folder static (STATIC= changes it); needs Node"
	@echo "make test      install, run the tests and print their coverage; make test-all runs the slow ones too"
	@echo "make audit     ask whether a known hole is in what is installed"
	@echo "make bench     ratios measured side by side"
	@echo "make lint      ruff and mypy; make format fixes what it can"
	@echo "make docs      build docs/ and the API reference into site/, and check their links"
	@echo "make lock      write the newest versions that fit into requirements.lock, from which CI installs"
	@echo "make release   check that all files name the same version, and tag it"

demo: $(VENV)/.demo-installed
	HOST=$(HOST) PORT=$(PORT) $(BIN)/python app.py

static: $(VENV)/.test-installed browser/build/page.js
	$(BIN)/python publish.py . --static $(STATIC)
	@echo "to open it: $(BIN)/python -m http.server --directory $(STATIC) --bind $(HOST) $(PORT)"

install: $(VENV)/.test-installed

test: lint scripts
	$(PYTEST) -m "not slow"

test-all: lint scripts
	$(PYTEST)

audit: $(VENV)/.test-installed $(VENV)/.audit-installed
	$(BIN)/python .ci/audit.py

bench: $(VENV)/.bench-installed
	$(BIN)/python -m benchmarks

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs-installed
	$(BIN)/mkdocs build

lock: $(VENV)/.lock-installed
	$(BIN)/uv pip compile pyproject.toml --extra test --extra audit --extra docs --universal --python-version 3.11 \
	  --upgrade --quiet --no-annotate --custom-compile-command "make lock" --output-file requirements.lock

release: $(VENV)/.test-installed
	$(BIN)/python tools/release.py

clean:
	rm -rf $(VENV) site

# The page's scripts, for the tests: left out, with a word, where Node is not installed.
scripts:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory browser/build/page.js; \
	else echo "Node is not installed: the page in the browser is not tested (tests/browser)"; fi

browser/build/page.js: browser/package-lock.json browser/build.js $(wildcard browser/src/*.js demo/*.js)
	@command -v npm >/dev/null || { echo "Node 20 or newer is needed to build the page: https://nodejs.org"; exit 1; }
	cd browser && npm ci --no-audit --no-fund && npm run build

# What is installed is written down in a file, so that make installs again only when pyproject.toml changes.
# The warnings kept quiet are setuptools' own, about editable installs in general.
$(VENV)/.%-installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo 'installing .[$*] into $(VENV): a few minutes and up to 6 GB, nearly all of it torch'
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
