# Everything a fresh clone needs: each command makes or updates .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
DATA ?=
# Processes that share the tests: one for each core, four at most (about 1 GB of memory each).
WORKERS ?= logical
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --maxprocesses 4 --dist worksteal
# The tests that need nothing but the library, pytest, hypothesis and SciPy.
LIBRARY := --ignore=tests/examples --ignore=tests/docs --ignore=tests/tools \
	--ignore=tests/benchmarks
# Number and seed of the mutants of each part.
SAMPLE ?= 100
SEED ?= 0
# Interpreters of the environments of the oldest and the newest torch.
OLDEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= $(PYTHON)

.DEFAULT_GOAL := help
.PHONY: help demo tasks train-demo test test-all test-portable mutants lint format docs linkcheck bench coverage \
	package guides test-oldest test-newest clean

help:  ## list these commands
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1|\2/p' Makefile | \
		while IFS='|' read -r name text; do printf 'make %-14s %s\n' "$$name" "$$text"; done

# One environment with pinned versions, in three parts, each of which is updated when a dependency or
# a version changes: what the command needs, what the other demos need, and everything else.
.venv/fit: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[fit]'
	touch $@

.venv/demo: .venv/fit
	$(PIP) -e '.[demo]'
	touch $@

.venv/installed: .venv/demo
	$(PIP) -e '.[examples,docs,dev]'
	touch $@

demo: OUT ?= outputs/demo
demo: .venv/fit  ## fit bodies, with pictures and a page; PHOTO=file or KEYPOINTS=file for yours
	$(BIN)/flowprior fit $(or $(PHOTO),$(KEYPOINTS),examples/keypoints/people.json) --fresh --out $(OUT)

tasks: OUT ?= outputs/tasks
tasks: .venv/demo  ## pictures of every task of the priors: completion, lifting, denoising, ...
	$(BIN)/python -m examples.tasks.demo --out $(OUT)

train-demo: OUT ?= outputs/lifting
train-demo: .venv/demo  ## train, evaluate and draw a small prior; DATA=poses.npz or an AMASS folder
	$(BIN)/python -m examples.lifting.demo $(if $(DATA),--data $(DATA)) --out $(OUT)

test: .venv/installed  ## all tests but the slow ones
	$(PYTEST) $(PARALLEL) -m 'not slow'

test-all: .venv/installed  ## all tests
	$(PYTEST) $(PARALLEL)

test-portable: .venv/installed  ## the library's tests in random order, without vector instructions
	ATEN_CPU_CAPABILITY=default $(PYTEST) $(PARALLEL) -p randomly $(LIBRARY)

mutants: .venv/installed  ## change one thing of flow, prior or rotations at a time, SAMPLE of each
	$(BIN)/python -m tools.mutate --sample $(SAMPLE) --seed $(SEED)

lint: .venv/installed  ## check style, types and dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture

format: .venv/installed  ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed  ## build the documentation; a warning is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build/html

linkcheck: .venv/installed  ## check external links; needs a network
	$(BIN)/sphinx-build -D plot_gallery=0 -b linkcheck docs docs/_build/linkcheck

coverage: .venv/installed  ## the lines and branches of the library that its tests run
	$(PYTEST) $(LIBRARY) --cov --cov-report=term-missing:skip-covered

package: .venv/installed  ## build wheel and sdist; test the wheel in an empty environment
	$(BIN)/nox -s dist
	FLOWPRIOR_DIST=dist $(BIN)/nox -s package guides

guides: .venv/installed  ## run the code of README, home page, quick start and guides; PAGES=...
	$(BIN)/python tools/run_docs.py --jobs 2 $(PAGES)

test-oldest: .venv/installed  ## test the wheel with the oldest supported torch and numpy
	$(BIN)/nox -s oldest --force-python $(OLDEST_PYTHON)

test-newest: .venv/installed  ## test the wheel with the newest version of everything
	$(BIN)/nox -s newest --force-python $(NEWEST_PYTHON)

bench: .venv/installed  ## measure speed and accuracy beside other libraries
	$(PIP) -e '.[bench]'
	$(BIN)/python -m benchmarks

clean:  ## remove environments and everything that was built
	rm -rf .venv .nox .coverage build dist docs/_build docs/auto_gallery outputs .mypy_cache .pytest_cache .ruff_cache .hypothesis
