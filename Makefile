# Everything a fresh clone needs: `make demo` and `make test` install into .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
OUT ?= outputs/demo

.PHONY: demo test mutants lint format docs bench clean

# One environment, rebuilt when a dependency or a pinned version changes.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[examples,docs,dev]'
	touch $@

demo: .venv/installed  ## the main job; DATA=poses.npz or an AMASS folder for real poses
	$(BIN)/python -m examples.lifting.demo $(if $(DATA),--data $(DATA)) --out $(OUT)

test: .venv/installed
	$(BIN)/python -m pytest

mutants: .venv/installed  ## one change of the flow at a time, and whether a test notices it
	$(BIN)/python -m tools.mutate

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build/html

bench: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist docs/_build outputs .mypy_cache .pytest_cache .ruff_cache .hypothesis
