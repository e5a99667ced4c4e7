# Everything a person does with the project, one line each. It needs python3, make and a package index.
WORKLOAD ?= house_prices
ARGS ?=
PYTHON ?= python3
BIN := .venv/bin
# uv trusts the certificates that the machine trusts, as pip does.
export UV_SYSTEM_CERTS := 1
# Without bytecode every `import tensorflow` compiles 4,000 modules again: 9 s instead of 2 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test test-slow check lock ui down bench clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: .venv/ready ## create .venv from the lock

# uv comes first, by pip and with its hash from the lock; uv then installs the rest and compiles it
# (where only pip knows the way to the index, pip does).
.venv/ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Headrace needs Python 3.11, 3.12 or 3.13; this is %s. Name another one: make setup PYTHON=python3.11" % sys.version.split()[0])'
	$(PYTHON) -m venv --clear .venv
	awk '/^uv==/{on=1} on{print} on&&!/\\$$/{exit}' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock \
	  || $(BIN)/python -m pip install --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

run: setup       ## run a workload as a Prefect flow: make run WORKLOAD=house_prices ARGS="--variant kfold_100"
	$(BIN)/headrace run $(WORKLOAD) --engine prefect $(ARGS)

test: setup      ## the tests (TESTS= names files or flags)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup --durations 25 --durations-min 10 $(TESTS)

test-slow: setup ## the tests, the slow ones too
	$(BIN)/python -m pytest --run-slow $(TESTS)

check: setup     ## style, spelling, types, architecture
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: setup      ## renew requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --upgrade --all-extras --group dev --output-file requirements.lock pyproject.toml

ui: setup        ## Prefect server, work pool, worker and all deployments; Ctrl-C stops them
	$(BIN)/headrace platform up

down: setup      ## stop the project's Prefect server
	$(BIN)/headrace platform down

bench: setup     ## measure, and keep the figures in benchmarks/results
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.kfold
	$(BIN)/python -m benchmarks.records
	$(BIN)/python -m benchmarks.statistics
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.export

clean:           ## remove the environment and everything that was run
	rm -rf .venv .headrace
