# A fresh machine needs Python 3.11 or later and make. Everything else lives in .venv, pinned by requirements.lock.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
# These are measured at 100% of lines and branches, or `make test` fails.
FULLY_COVERED := gridgov/model.py,gridgov/amounts.py,gridgov/validate.py,gridgov/replay.py,gridgov/engine.py,gridgov/state.py,gridgov/journal.py,gridgov/decide.py

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Empty is off: a process that may not keep its bytecode compiles the same again each time.
export PYTHONDONTWRITEBYTECODE :=
export NO_PYTHON := gridgov needs Python 3.11 or later with venv, and "$(PYTHON)" is not that: install one \
(Debian: python3 and python3-venv) and name it, as in: make PYTHON=python3.12 $(MAKECMDGOALS)

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench .venv lock clean

help: ## this list
	@awk -F ':.*## ' '/^[.a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv ## a guided tour, offline
	@$(BIN)/python -m sim.demo

test: lint ## lint, then the tests with coverage: what CI runs
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report= -q
	$(BIN)/python -m coverage report --include=$(FULLY_COVERED) --fail-under=100 --skip-covered --show-missing

lint: .venv ## format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: .venv ## the benchmarks, each beside its reference
	$(BIN)/python -m pytest -o norecursedirs=.\* -p no:xdist -s tests/benchmarks

.venv: .venv/.ready ## set up .venv (the others do so when it is missing or out of date)
	@:

# Each stamp is written last, so a set-up that was interrupted is done again.
.venv/.ready: .venv/.installed pyproject.toml
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable . 2>/dev/null \
		|| $(BIN)/python -m pip install -q --no-deps --no-build-isolation --editable .
	@touch $@

# uv takes seconds where pip takes half a minute; pip does the same work where uv has no build or finds no index.
# Nothing is compiled to bytecode ahead: it takes 6 s to save 2.
.venv/.installed: requirements.lock
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$$NO_PYTHON" >&2; exit 2; }
	@echo 'setting up .venv from requirements.lock, once' >&2
	@$(PYTHON) -m venv --clear .venv
	@awk '/^[^ #]/ {found = /^uv==/} found' requirements.lock >.venv/uv.lock
	@{ $(BIN)/python -m pip install -qq --only-binary :all: --require-hashes -r .venv/uv.lock \
		&& $(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock; } \
		|| $(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	@touch $@

lock: .venv ## write requirements.lock anew from pyproject.toml; UPGRADE=--upgrade takes newer versions
	UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --universal \
		--python-version 3.11 --extra dev $(UPGRADE) --output-file requirements.lock pyproject.toml

clean: ## remove .venv, caches and what builds leave; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
