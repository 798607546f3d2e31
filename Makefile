# Two commands set everything up on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO = plan palm-540b --on tpu-v4:4x4x4 --input 2048 --output 64 --batch 512

.PHONY: demo test check format readme accuracy docs bench clean

demo: $(VENV)/installed
	$(BIN)/shardwise $(DEMO)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python .ci/as_package.py mypy --config-file shardwise/pyproject.toml -p shardwise
	$(BIN)/python .ci/as_package.py lint-imports --no-logo --config shardwise/pyproject.toml
	$(BIN)/python -m pytest -n 2 -m "not slow"

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: $(VENV)/installed-dev
	$(BIN)/python docs/refresh_readme.py

accuracy: $(VENV)/installed-dev
	$(BIN)/python docs/refresh_accuracy.py

docs: $(VENV)/installed-dev
	$(BIN)/python docs/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/planner_speed.py
	$(BIN)/python benchmarks/whatif_speed.py
	$(BIN)/python benchmarks/serving_speed.py
	$(BIN)/python benchmarks/cpu_execution.py
	$(BIN)/python benchmarks/explorer_speed.py

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0 triton==3.7.1
	$(BIN)/pip install --quiet --editable ".[dev,docs]"
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache
