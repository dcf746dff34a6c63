# make demo    the whole line in one go: data, training, deployment, predictions (KEEP=1 leaves the engine running)
# make test    all checks and tests
# make test-slow  what takes longer: each kind of runtime built and trained in
# make lint    the checks alone
# make docs    write the generated pages of docs/ again
# make protos  compile the messages of gRPC again
# make lock    resolve the dependencies anew
# make clean   remove what the others made
#
# Needs python3 (3.11 or newer) with venv, make and git; no root. Everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint lock docs protos clean

help:
	@sed -n 's/^# make/make/p' Makefile

demo: $(VENV)/.installed
	@$(BIN)/python -m enginehouse.ops.demo

test: lint
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@! grep -qs importlinter pyproject.toml .importlinter || $(BIN)/lint-imports

docs: $(VENV)/.installed-dev
	$(BIN)/python tools/generate_docs.py

PROTOS := src/enginehouse/api/rpc/protos
protos: $(VENV)/.installed-dev
	$(BIN)/python -m grpc_tools.protoc -I $(PROTOS) --include_imports \
		--descriptor_set_out=$(PROTOS)/descriptors.binpb tensorflow.proto serving.proto inference.proto

# hatchling and editables build the package itself, which is installed without a build environment of its own.
lock: $(VENV)/.installed
	printf 'hatchling\neditables\n' | $(COMPILE) --upgrade -o requirements.lock pyproject.toml -
	printf 'hatchling\neditables\n' | $(COMPILE) --upgrade -c requirements.lock --extra dev \
		-o requirements-dev.lock pyproject.toml -

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps make an installation happen once per change of a lock. Code is compiled at the end, since the first
# command would pay for it otherwise, and every one where Python may not write bytecode.
$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Enginehouse needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
