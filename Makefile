# Every target does all of its own set-up: `make demo` on a fresh machine is enough.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check format bench bench-speed bench-quality bench-cold bench-graphs bench-sequences bench-planted clean

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(INSTALLED)         ## the main job on the planted shop: pictures and titles in, a table and recommendations out
	$(BIN)/modalmix demo

test: $(INSTALLED)         ## the whole suite, under 10 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(INSTALLED)        ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/tree.py --check

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python scripts/tree.py

bench: bench-speed bench-quality bench-cold bench-graphs bench-sequences bench-planted  ## speed and quality benchmarks; only missing rows are run

bench-speed: $(INSTALLED)
	$(BIN)/python -m benchmarks.speed

bench-quality: $(INSTALLED)
	$(BIN)/python -m benchmarks.quality

bench-cold: $(INSTALLED)
	$(BIN)/python -m benchmarks.cold

bench-graphs: $(INSTALLED)
	$(BIN)/python -m benchmarks.graphs

bench-sequences: $(INSTALLED)
	$(BIN)/python -m benchmarks.sequences

bench-planted: $(INSTALLED)
	$(BIN)/python -m benchmarks.planted

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache runs
