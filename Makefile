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
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Headrace needs Python 3.11, 3.12 or 3.13; this is %s. Name another one: make setup PYTHON=python3.11" % sys.version.split()[0])'
	$(PYTHON) -m venv --clear .venv
	awk '/^uv==/{on=1} on{print} on&&!/\\$$/{exit}' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock \
	  || $(BIN)/python -m pip install --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@
