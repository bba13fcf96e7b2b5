# Thin targets. Everything runs in .venv, with the versions of requirements/constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt
# Workers of pytest, with one thread each: more threads than cores are many times slower. Each worker takes whole modules
# until the other has nothing left, so that a module's fixtures are made once.
TEST_WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

# Tests on real faces and weights run if these directories exist; otherwise they are skipped with the reason.
PPFR_DATA ?= $(wildcard $(abspath ../shared/data))
PPFR_WEIGHTS ?= $(wildcard $(abspath ../shared/weights))
export PPFR_DATA PPFR_WEIGHTS

.PHONY: setup demo test test-all lint type arch api pages docs bench minimum check clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/	/'

$(VENV)/.runtime: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) torch==2.13.0 -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP_INSTALL) torch==2.13.0 -e '.[dev,docs,onnx,he]'
	touch $@

setup: $(VENV)/.dev  ## environment for development

demo: $(VENV)/.runtime  ## environment + the whole loop on synthetic faces; prints the path of the report
	$(BIN)/ppfr demo --out runs/demo --resume

test: $(VENV)/.dev  ## environment + fast tests and doctests
	$(PYTEST) -m "not slow" --durations=15

# Measuring coverage nearly doubles the processor time, so the slow tests run without it.
test-all: $(VENV)/.dev  ## every test and doctest; coverage of the fast ones
	$(PYTEST) -m "not slow" --durations=15 --cov=ppfr --cov-report=term:skip-covered
	$(PYTEST) -m slow --durations=15

lint: $(VENV)/.dev  ## ruff: format and rules; codespell: spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

type: $(VENV)/.dev  ## mypy
	$(BIN)/mypy

arch: $(VENV)/.dev  ## import-linter: imports point downwards only
	$(BIN)/lint-imports

api: $(VENV)/.dev  ## write the snapshot of all public names after an intended change
	$(BIN)/python tests/support/public_names.py

# Every committed record has a page; it is rendered again if the record or the report's code is newer.
RECORDS := $(shell grep -l '"schema_version"' results/*/*.json)
PAGES := $(RECORDS:.json=.html)

results/%.html: results/%.json $(shell find src/ppfr/report -type f -not -name '*.pyc') | $(VENV)/.dev
	$(BIN)/ppfr report $< --out $@

pages: $(VENV)/.dev $(PAGES)  ## HTML pages of all records, in results/

docs: pages  ## render the pages and build the documentation, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev  ## speed benchmarks; writes benchmarks/*.json
	$(BIN)/python benchmarks/front_end.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/crop_reading.py --json benchmarks/crop_reading.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/image_similarity.py --json benchmarks/image_similarity.json
	$(BIN)/python benchmarks/networks.py --threads 2 --json benchmarks/networks.json
	$(BIN)/python benchmarks/mixing.py --threads 2 --json benchmarks/mixing.json
	$(BIN)/python benchmarks/training_overhead.py --json benchmarks/training_overhead.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/secure_matching.py --json benchmarks/secure_matching.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/secure_parties.py --json benchmarks/secure_parties.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/template_stores.py --json benchmarks/template_stores.json
	$(BIN)/python benchmarks/waiting_threads.py --json benchmarks/waiting_threads.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/secure_backends.py --json benchmarks/secure_backends.json

minimum:  ## tests with the oldest supported versions, in an environment of their own
	$(PYTHON) -m venv $(VENV)-minimum
	$(VENV)-minimum/bin/python -m pip install --quiet --disable-pip-version-check -c requirements/minimum.txt \
		torch==2.7.0 -e '.[mpyc,he,onnx]' pytest pytest-randomly pytest-xdist hypothesis scikit-learn scikit-image
	OMP_NUM_THREADS=1 $(VENV)-minimum/bin/python -m pytest -n $(TEST_WORKERS)

check: lint type arch docs test-all  ## what CI runs

clean:  ## remove the environment, caches and rendered pages
	rm -rf $(VENV) $(VENV)-minimum .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache site $(PAGES)
