# Quantum Trader: every target sets up .venv by itself and is quick when nothing changed.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first interpreter that runs and is 3.11 or 3.12.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& echo "$$python" && break; done)
# Where torch comes from; README says when to set it.
TORCH_INDEX ?=
# Further arguments of `make run` and `make test`, for example ARGS="--speed 60".
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOCK := infrastructure/requirements.lock
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup run test test-long check fmt bench docs lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | column -t -s '|'

setup: $(INSTALLED) ## Create .venv and install everything

$(INSTALLED): $(LOCK) pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and none was found; install one or set PYTHON=/its/path" >&2; exit 4; }
	@test -x $(BIN)/python || { echo "creating $(VENV) with $(PYTHON)" >&2; $(PYTHON) -m venv $(VENV); }
	@echo "installing torch (1 of 3)" >&2
	@$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "torch==2.13.0"
	@echo "installing the locked packages (2 of 3)" >&2
	@$(PIP) install --quiet --require-hashes --no-deps -r $(LOCK)
	@echo "installing quantum-trader itself (3 of 3)" >&2
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: $(INSTALLED) ## Start everything for paper trading; Ctrl-C stops it
	@exec $(BIN)/quantum-trader up $(ARGS)

test: $(INSTALLED) ## Run the tests that a fresh machine can run in minutes
	$(BIN)/python -m pytest -m "not long" --numprocesses 2 --dist loadgroup $(ARGS)

test-long: $(INSTALLED) ## Run the tests that take long
	$(BIN)/python -m pytest -m long $(ARGS)

check: $(INSTALLED) ## Lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fmt: $(INSTALLED) ## Format and mend what a machine can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Measure speed, each figure beside a rival
	$(BIN)/quantum-trader bench $(ARGS)

docs: $(INSTALLED) ## Write the generated pages of docs/ again
	$(BIN)/python -m infrastructure.docs.events_page
	$(BIN)/python -m infrastructure.docs.metrics_page
	$(BIN)/python -m infrastructure.docs.paper_exchange_page

lock: $(INSTALLED) ## Resolve the dependencies of pyproject.toml into the lock file
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-package torch --no-header --no-annotate --quiet --output-file $(LOCK)

clean: ## Remove .venv, state and caches
	rm -rf $(VENV) var .mypy_cache .ruff_cache *.egg-info
