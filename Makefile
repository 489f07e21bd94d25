# Everything a fresh clone needs: `make demo` and `make test` install into .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
OUT ?= outputs/demo
# Interpreters of the environments of the oldest and the newest torch.
OLDEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= $(PYTHON)

.PHONY: demo test mutants lint format docs linkcheck bench coverage package test-oldest test-newest clean

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

linkcheck: .venv/installed  ## the addresses outside of the repository; needs a network
	$(BIN)/python -m tools.links
	$(BIN)/sphinx-build -D plot_gallery=0 -b linkcheck docs docs/_build/linkcheck

coverage: .venv/installed  ## the library's tests, and what of the library they run
	$(BIN)/python -m pytest --ignore=tests/examples --ignore=tests/docs \
		--cov --cov-report=term-missing:skip-covered

package: .venv/installed  ## wheel and sdist, tried in an empty environment
	$(BIN)/python -m tools.clean_room .venv-package --constraints constraints.txt

test-oldest: .venv/installed  ## the wheel with the oldest torch and numpy that are supported
	$(BIN)/python -m tools.clean_room .venv-oldest --python $(OLDEST_PYTHON) \
		--constraints constraints-oldest.txt

test-newest: .venv/installed  ## the wheel with the newest of everything
	$(BIN)/python -m tools.clean_room .venv-newest --python $(NEWEST_PYTHON) --extras

bench: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .venv-package .venv-oldest .venv-newest .coverage build dist docs/_build docs/auto_gallery outputs .mypy_cache .pytest_cache .ruff_cache .hypothesis
