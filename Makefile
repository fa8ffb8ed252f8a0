# A fresh machine needs Python 3.11 or later and make. Everything else lives in .venv, pinned by requirements.lock.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
# These are measured at 100% of lines and branches, or `make test` fails.
FULLY_COVERED := gridgov/model.py,gridgov/amounts.py,gridgov/validate.py,gridgov/replay.py,gridgov/engine.py,gridgov/state.py,gridgov/journal.py,gridgov/decide.py,gridgov/typed.py
# These do it; the others run without being measured, which takes half the time.
COVERING := $(patsubst %,tests/test_%.py,model amounts validate replay engine state journal typed ledger flows wire source runner)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Empty is off: a process that may not keep its bytecode compiles the same again each time.
export PYTHONDONTWRITEBYTECODE :=
export NO_PYTHON := gridgov needs Python 3.11 or later with venv, and "$(PYTHON)" is not that: install one \
(Debian: python3 and python3-venv) and name it, as in: make PYTHON=python3.12 $(MAKECMDGOALS)

.DEFAULT_GOAL := help
.PHONY: help demo test lint extras pictures bench n8n .venv lock clean

help: ## this list
	@awk -F ':.*## ' '/^[.a-z0-9]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv ## a guided tour, offline
	@$(BIN)/python -m sim.demo

test: lint ## lint, then the tests, those of the core with coverage: what CI runs
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report= -q $(COVERING)
	$(BIN)/python -m coverage report --include=$(FULLY_COVERED) --fail-under=100 --skip-covered --show-missing
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q $(COVERING:%=--ignore=%)

lint: .venv ## format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

extras: .venv ## Ray, and what drives a browser (Debian's chromium, or yours) in the tests of the dashboard
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r .ci/extras.lock

pictures: .venv ## the README's pictures of the dashboard, anew
	@$(BIN)/python -m dashboard.pictures

bench: .venv ## the benchmarks, each beside its reference
	$(BIN)/python -m pytest -o norecursedirs=.\* -p no:xdist -s tests/benchmarks

n8n: ## install n8n, for `gridgov up --n8n` and its tests: minutes once, into a cache outside of here
	@PYTHON="$(PYTHON)" n8n/install.sh

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
	UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-strip-extras --universal \
		--python-version 3.11 --extra dev $(UPGRADE) --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 \
		--constraints requirements.lock $(UPGRADE) --output-file .ci/extras.lock .ci/extras.in

clean: ## remove .venv, caches and what builds leave; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
