# Thin targets; README.md has the plain commands behind them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo dev test check bench clean pins

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib dataflow_assets dataflow_assets_tests || true
	touch $(STAMP)

demo: setup
	$(BIN)/python examples/nyc_flights/demo.py

dev: setup
	$(BIN)/dataflow --project examples/nyc_flights dev

test: setup check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

bench: setup
	$(BIN)/python -m benchmarks

pins:
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	  --no-emit-index-url --no-header --generate-hashes -o requirements.txt
	uv pip compile --group services -c requirements.txt --universal --python-version 3.11 \
	  --no-emit-index-url --no-header --no-annotate --generate-hashes -o requirements-services.txt
	uv pip compile --group bigquery-emulator --universal --python-version 3.11 \
	  --no-emit-index-url --no-header --no-annotate --generate-hashes -o requirements-bigquery.txt
	uv pip compile pyproject.toml --all-extras -c requirements.txt --universal --python-version 3.11 \
	  --no-emit-index-url --no-header --no-annotate --generate-hashes -o deploy/requirements.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
