# `make demo` shows the whole pipeline on this machine, `make up` deploys it here, `make test` proves it. Each installs
# what it needs first.

PYTHON ?= python3
BIN := .venv/bin
KILLS ?= 100
# Without its thirty dependencies: what the tests compare with needs none of them.
HARNESS := --no-deps lm_eval

.PHONY: demo up test chaos lint types lock clean

demo: .venv/.run
	@$(BIN)/codetune run demo

up: .venv/.run
	@exec $(BIN)/codetune up $(if $(PORT),--port $(PORT))

# Two hundred processes would each compile the project anew where Python is told to write no bytecode.
test: .venv/.dev
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Breaks runs in every way that docs/reliability.md lists, some of them only as root; fifteen to forty minutes on two cores.
chaos: .venv/.dev
	@nice $(BIN)/python -m tests.chaos --kills $(KILLS)

lint: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.dev
	@$(BIN)/mypy

.venv/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "codetune needs Python 3.11 to 3.13; name one with: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	@echo "installing into .venv (a few minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

.venv/.dev: .venv/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(HARNESS)
	@touch $@

# Newest versions within pyproject.toml's bounds, in a fresh environment; look at the tests before you commit the result.
# Triton stays unpinned: every CUDA build of torch asks for the one that it was made with.
lock: SHELL := bash
lock:
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet --constraint <(grep -i '^torch==' constraints.txt) --editable '.[dev]'
	@.venv-lock/bin/pip install --quiet $(HARNESS)
	@{ head -1 constraints.txt; .venv-lock/bin/pip freeze --exclude codetune --exclude triton | sed 's/+cpu//' | sort -f; } > constraints.new
	@mv constraints.new constraints.txt && rm -r .venv-lock

clean:
	rm -rf .venv store
