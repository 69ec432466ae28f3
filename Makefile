# make demo: a private federation on this machine.  make test: the tests.  Both install into .venv first.
PYTHON ?= python3
SHELL := /bin/bash -o pipefail
VENV := .venv
BIN := $(VENV)/bin
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: demo test test-slow coverage fuzz browser check stubs install clean
.DEFAULT_GOAL := demo

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/fedtrain simulate simulations/digits.toml

test: install
	$(BIN)/pytest -n 2 --dist loadfile

# Processes are killed and networks cut in them, by the clock: what fails is run once more, with
# nothing beside it, and fails where it fails again. Both outputs are there to be read.
test-slow: install
	$(BIN)/pytest -n 2 --dist loadfile -m slow || \
	  { [ $$? = 1 ] && $(BIN)/pytest -m slow --last-failed --last-failed-no-failures none; }

# Every branch of secure aggregation, by its own fast tests.
coverage: install
	$(BIN)/coverage run --data-file=$(VENV)/coverage --branch --source=fedtrain.secagg -m pytest -q tests/secagg
	$(BIN)/coverage report --data-file=$(VENV)/coverage --show-missing --skip-covered --fail-under=100

fuzz: install
	$(BIN)/pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python -m tests.secagg.fuzz_codec 30 2>&1 | tail -n 3
	$(BIN)/python -m tests.link.fuzz_parcel 20 2>&1 | tail -n 3

# What tests/report/test_chromium.py needs besides Debian's chromium.
browser: install
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[browser]'

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The stubs of fedtrain/link/link.proto, checked in; tests/link/test_stubs.py compares.
STUBS ?= .
stubs: install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I . --python_out=$(STUBS) \
	  --grpc_python_out=$(STUBS) --mypy_out=quiet:$(STUBS) --mypy_grpc_out=quiet:$(STUBS) \
	  fedtrain/link/link.proto

clean:
	rm -rf $(VENV) build dist *.egg-info
