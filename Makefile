# `make demo` runs the whole pipeline on this machine, `make up` deploys it here, `make test` tests it. Each first installs
# what it needs.

PYTHON ?= python3
BIN := .venv/bin
KILLS ?= 100
# Without its thirty dependencies: the tests use no part that needs them.
HARNESS := lm_eval

.PHONY: demo up test test-lowest coverage mutants chaos pictures lint types lock clean

demo: .venv/.run
	@$(BIN)/codetune run demo --set 'exporting.forms=[merged, gguf-f16]'

up: .venv/.run
	@exec $(BIN)/codetune up $(if $(PORT),--port $(PORT))

# With PYTHONDONTWRITEBYTECODE set, each of two hundred processes would compile the project again.
test: .venv/.dev
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# The tests that are not slow, with the lowest versions that pyproject.toml allows. Warnings of old versions are no errors here.
test-lowest: .venv-lowest/.done
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= .venv-lowest/bin/python -m pytest -n 3 --dist loadfile \
	    --no-loadscope-reorder -m "not slow and not gpu" -W default --ignore tests/test_warnings.py

# The same tests, and which lines and branches they reach. `make test` does not include it. More in docs/testing.md.
coverage: .venv/.dev
	@rm -rf build/coverage && mkdir -p build/coverage
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/coverage run -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report

# Which changes of the code no test notices. All of it takes hours; ONLY="tasks/gate tasks/statistics" runs a part.
mutants: .venv/.dev
	@nice $(BIN)/python -m tools.mutants $(ONLY)

# Breaks runs in all ways that docs/reliability.md lists, some only as root. Takes fifteen to forty minutes on two cores.
chaos: .venv/.dev
	@nice $(BIN)/python -m tests.chaos --kills $(KILLS)

# Makes the pictures of README.md and docs/ from the demo as it is now. Needs Chromium.
pictures: .venv/.dev
	@$(BIN)/python -m tools.pictures

lint: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.dev
	@$(BIN)/mypy

.venv/.run: pyproject.toml requirements.txt
	@$(PYTHON) tools/install.py
	@touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	@$(PYTHON) tools/install.py --dev
	@touch $@

.venv-lowest/.done: pyproject.toml requirements-dev.txt
	@$(PYTHON) tools/install.py --lowest --into .venv-lowest
	@touch $@

# Locks the dependencies in pyproject.toml to versions that work together, with the hash of every file. Run the tests before
# you commit the result. `make lock UPGRADE=--upgrade` takes the newest of all, `UPGRADE='--upgrade-package peft'` of one.
UPGRADE ?=
COMPILE = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
          --custom-compile-command 'make lock' $(UPGRADE)
lock:
	@$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet --require-hashes --requirement tools/uv.txt
	@printf 'hatchling\neditables\n' > .venv-lock/build.in
	@$(COMPILE) --extra serve pyproject.toml .venv-lock/build.in --output-file requirements.txt
	@echo $(HARNESS) > .venv-lock/harness.in
	@$(COMPILE) --no-deps .venv-lock/harness.in --output-file .venv-lock/harness.txt
	@$(COMPILE) --extra dev pyproject.toml .venv-lock/build.in --constraint requirements.txt --output-file .venv-lock/dev.txt
	@cat .venv-lock/dev.txt .venv-lock/harness.txt > requirements-dev.txt
	@echo mutmut > .venv-lock/mutmut.in
	@$(COMPILE) .venv-lock/mutmut.in --constraint .venv-lock/dev.txt --output-file tools/mutmut.txt
	@grep -o '^torch==[^ ]*' requirements.txt | sed 's/$$/+cpu/' > .venv-lock/torch.in
	@$(COMPILE) --no-deps --torch-backend cpu .venv-lock/torch.in --output-file tools/torch-cpu.txt
	@echo uv > .venv-lock/uv.in
	@$(COMPILE) .venv-lock/uv.in --output-file tools/uv.txt
	@rm -r .venv-lock

clean:
	rm -rf .venv .venv-lowest store
