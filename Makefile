# Everything runs from a virtual environment in .venv, set up by the first target that needs it.
# Needed beforehand: make and Python 3.11 or newer (choose one with `make PYTHON=python3.12 ...`).

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev
RUN ?= runs/$(RECIPE)-seed0
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS ?=
RECIPE ?= r1-tiny
# Test files are shared out over the cores; `make test TEST_PROCESSES=0` runs them one after another.
TEST_PROCESSES ?= auto
PYTEST := $(BIN)/python -m pytest -q --numprocesses $(TEST_PROCESSES) --maxprocesses 4 --dist loadfile

# One compute thread and sleeping (not spinning) waits: two spinning threads on a busy machine can be tens of times slower.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup run chat serve test test-all check format results wheel clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /	/' | expand -t 12

setup: $(DEV_STAMP)  ## Set up .venv with the pinned dependencies and the development tools

run: $(STAMP)  ## Grow DeepSeek-R1 from random weights (RECIPE=r1-zero-tiny: R1-Zero alone; ARGS="--seed 1" and so on)
	$(BIN)/aha run $(RECIPE) $(ARGS)

chat: $(STAMP)  ## Talk in the terminal to what `make run` has grown (RUN=runs/other: to another run's models)
	$(BIN)/aha chat $(RUN) $(ARGS)

serve: $(STAMP)  ## A page to talk to its models and to watch it, and OpenAI's API, on http://127.0.0.1:8000
	$(BIN)/aha serve $(RUN) $(ARGS)

test: $(DEV_STAMP)  ## The tests, without the slow ones
	$(PYTEST) -m "not slow and not gpu" $(ARGS)

test-all: $(DEV_STAMP)  ## All tests that need no GPU
	$(PYTEST) -m "not gpu" $(ARGS)

check: $(DEV_STAMP)  ## Lint, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_STAMP)  ## Format the code and fix what can be fixed by rule
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

results: $(STAMP)  ## Reproduce the published tables (hours; resumes where it stopped)
	$(BIN)/python experiments/results.py $(ARGS)
	$(BIN)/python experiments/r1_results.py $(ARGS)

wheel: $(DEV_STAMP)  ## Build the wheel and the source distribution in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

clean:  ## Remove the environment and caches; runs/ stays
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "aha needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(STAMP): pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) --editable '.[serve]'
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(STAMP) $@
