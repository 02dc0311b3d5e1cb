# `make` alone lists the targets. Each works on a machine that has Python >= 3.10 and make.
PYTHON ?= python3
MINUTES ?= 60
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that run the tests: a core and about 1.5 GB of memory each.
JOBS ?= 2
# A file of tests in one process, small ones last: in order, the doctests of src are the end.
SPREAD := --dist loadfile --no-loadscope-reorder
# Bytecode is written whatever the environment says: else each of the many processes that tests
# start compiles whence again, 0.4 seconds of 3.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help install demo test coverage test-slow properties crash threads fuzz compat release evidence lint types stub reference notebooks docs bench paper clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv with everything pinned; a second run does nothing.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Expected Python >= 3.10. Got %d.%d. Name another one: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs,experiments]"
	@touch $@

demo: $(STAMP) ## Explain a misread digit, retrain to check, write whence-demo.html.
	$(BIN)/whence demo

test: $(STAMP) ## Run the tests, the doctests and the code of the README.
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) $(SPREAD)

coverage: $(STAMP) ## Print which lines and branches of src the tests do not execute.
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) $(SPREAD) --cov=whence --cov-branch --cov-report=term-missing:skip-covered

test-slow: $(STAMP) ## Run the slow tests too.
	$(BIN)/python -m pytest -n $(JOBS) $(SPREAD)

properties: $(STAMP) ## Run the tests on new random examples; those of `make test` are the same each time.
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) $(SPREAD) --hypothesis-profile=new

crash: $(STAMP) ## Stop everything that writes at 1,000 random points; the counts go into the documentation.
	$(BIN)/python -m tests.crash --page docs/explanation/reliability.md

threads: $(STAMP) ## Ask one model by eight threads, by every method, 50 times; the counts go into the documentation.
	$(BIN)/python -m tests.threads --page docs/explanation/reliability.md

fuzz: $(STAMP) ## Pass wrong values to every public function, for MINUTES (60), every failure printed once.
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

compat: $(STAMP) ## Run models of each kind with the oldest and newest packages of each Python.
	$(BIN)/python -m release.compat

release: lint types test docs evidence ## Do all of a release but the upload.
	$(BIN)/python -m release

evidence: $(STAMP) ## Write docs/explanation/evidence.md: every claim with the command that proves it.
	$(BIN)/python -m release.evidence

lint: $(STAMP) ## Check style and layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## Check types, strictly.
	$(BIN)/mypy

stub: $(STAMP) ## Write src/whence/__init__.pyi after a public name was added.
	$(BIN)/python -m tests.stub

reference: $(STAMP) ## Write the pages of the reference after a docstring has changed.
	$(BIN)/python -m tests.reference

notebooks: $(STAMP) ## Execute the notebooks of the documentation after what they print has changed.
	$(BIN)/python -m tests.notebooks

docs: $(STAMP) ## Build the site under site/, the reference of the command line anew.
	$(BIN)/python -m typer whence.cli utils docs --name whence --output docs/reference/cli.md
	$(BIN)/mkdocs build --strict

bench: $(STAMP) ## Measure speed, memory and accuracy, alone and beside other libraries.
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks peers

paper: $(STAMP) ## Reproduce the experiments of Koh & Liang (2017).
	$(BIN)/whence paper

clean: ## Remove the environment and what was built.
	rm -rf $(VENV) site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
