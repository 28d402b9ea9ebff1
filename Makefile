# Everything a developer or a CI runs. `make` alone lists the targets; every target sets up what it needs.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON := .venv/bin/python
STAMP := .venv/.installed
# Tests neither reach a network nor fight over the cores.
TEST_ENV := WANDB_MODE=offline HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
PYTEST := $(TEST_ENV) $(PYTHON) -m pytest

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z][a-z_-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z_-]+):[^#]*## */\1\t/' | expand -t 16

# -- environment ------------------------------------------------------------------------------------------------------
.PHONY: setup
setup: $(STAMP)  ## install the locked environment into .venv (once; again when the lock changes)

# uv does the installing; where the machine has none, pip puts one beside the environment.
UV := if uv --version >/dev/null 2>&1; then uv=uv; else \
	  uv=.tools/bin/uv; \
	  test -x $$uv || python3 -m pip install --quiet --disable-pip-version-check --target .tools uv 2>/dev/null \
	    || { python3 -m venv .tools/venv && .tools/venv/bin/pip install --quiet uv && mkdir -p .tools/bin \
	         && ln -sf ../venv/bin/uv .tools/bin/uv; }; fi

$(STAMP): requirements.txt pyproject.toml
	@$(UV); \
	test -x $(PYTHON) || $$uv venv --quiet --python '>=3.11' .venv; \
	$$uv pip sync --quiet --compile-bytecode --python $(PYTHON) --require-hashes requirements.txt; \
	$$uv pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation -e .
	@touch $@

# The benchmark's rivals bring forty packages that nothing else needs; they have a lock of their own.
LOCK := --universal --generate-hashes --python-version 3.11
EXTRAS := onnx sweep cluster report heic tensorboard mlflow

.PHONY: lock
lock:  ## recompile the requirements*.txt from pyproject.toml
	uv pip compile $(LOCK) $(EXTRAS:%=--extra %) --group dev pyproject.toml -o requirements.txt
	uv pip compile $(LOCK) --extra benchmark -c requirements.txt pyproject.toml -o requirements-benchmark.txt

# -- see it work ------------------------------------------------------------------------------------------------------
.PHONY: demo
demo: $(STAMP)  ## transfer learning against training from scratch, on real pictures, in four minutes
	@$(PYTHON) examples/demo.py

# -- tests ------------------------------------------------------------------------------------------------------------
.PHONY: test test-fast test-slow test-long
test: $(STAMP)  ## every test but the slow ones (under 10 minutes)
	$(PYTEST) -m "not slow"

test-fast: $(STAMP)  ## unit and contract tests (under 90 seconds)
	$(PYTEST) -m "not slow and not e2e"

test-slow: $(STAMP)  ## the long proofs (under 30 minutes)
	$(PYTEST) -m "slow and not long"

test-long: $(STAMP)  ## the longest: twenty trials of a search, three seeds mixed, a local Ray
	$(PYTEST) -m long

# -- code -------------------------------------------------------------------------------------------------------------
.PHONY: lint types check format
lint: $(STAMP)  ## ruff: rules and formatting
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: $(STAMP)  ## mypy, strict, on the package
	$(PYTHON) -m mypy finetune

check: lint types test-fast  ## what to run before a commit

format: $(STAMP)  ## let ruff rewrite what it can
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# -- measurements -----------------------------------------------------------------------------------------------------
.PHONY: bench benchmark cache export-matrix
bench: $(STAMP)  ## speed, as ratios measured in one run; writes bench.json
	$(PYTHON) -m bench

.venv/.benchmark: requirements-benchmark.txt $(STAMP)
	@$(UV); $$uv pip install --quiet --python $(PYTHON) --require-hashes -r requirements-benchmark.txt
	@touch $@

benchmark: .venv/.benchmark  ## accuracy against fastai, timm and a linear probe; hours, resumable; ARGS="--report" writes the table
	$(PYTHON) -m bench.accuracy $(ARGS)

cache: $(STAMP)  ## show the store of frozen features; ARGS="--prune" empties it
	$(PYTHON) -m finetune.cache $(ARGS)

export-matrix: $(STAMP)  ## every exporter times four families: sizes, latencies, parity
	$(PYTHON) -m bench.export_matrix

# -- packaging --------------------------------------------------------------------------------------------------------
.PHONY: wheel clean
wheel: $(STAMP)  ## build dist/*.whl
	$(PYTHON) -m build --no-isolation --wheel

clean:  ## remove what was built or cached here; runs/ and .venv stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis outputs multirun wandb
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
