# Everything here works from a bare clone with Python 3.11 or newer, pip and make.
#   PYTHON=python3.12 make …        another Python makes .venv
#   TORCH_INDEX=URL make …          another index beside pip's own, such as https://download.pytorch.org/whl/cpu
#   ARGS='--minutes 4' make demo    options for seedbed quickstart

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
WORKERS ?= 2
COVERAGE ?= 85
STEP_COVERAGE ?= 100

BIN := .venv/bin
LOCKED := .venv/.locked
READY := .venv/.ready
# One thread for each worker: the bits of a result depend on the number of threads, and workers share the cores.
PYTEST = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test proof check bench docs clean

help: ## say what there is
	@echo "make TARGET, from a bare clone with Python 3.11 or newer, pip and make:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1:\2/p' Makefile | awk -F: '{ printf "%-9s%s\n", $$1, $$2 }'
	@echo "Options: PYTHON=python3.12, TORCH_INDEX=https://download.pytorch.org/whl/cpu, ARGS='--minutes 4' for demo."

demo: $(READY) ## the whole way from raw text to a chat model, on a CPU (seedbed quickstart --out runs/demo)
	$(BIN)/seedbed quickstart --out runs/demo $(ARGS)

test: $(READY) ## all tests that take seconds, and the coverage of the package
	$(PYTEST) -m "not proof" --cov=seedbed --cov-report=term --cov-fail-under=$(COVERAGE) $(ARGS)
	@echo "The training and generation step, which must be covered whole:"
	$(BIN)/coverage report --no-skip-covered --show-missing --include='*/training/trainer.py,*/inference/engine.py,*/inference/choosing.py' --fail-under=$(STEP_COVERAGE)

proof: $(READY) ## all tests, the long ones too
	$(PYTEST) $(ARGS)

check: $(READY) ## lint, format, types, and the floors of the house
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## every claim of benchmarks/, each printing its figures
	@for file in benchmarks/*.py; do \
		[ -e "$$file" ] || { echo "benchmarks/ holds no claim yet"; exit 0; }; \
		echo "== $$file"; $(BIN)/python "$$file" || exit 1; \
	done

docs: $(READY) ## check that every command and link in README and docs/ is real, and say where to read
	$(BIN)/pytest -q tests/test_docs.py
	@echo "Read:"; for file in README.md CONTRIBUTING.md docs/*.md; do echo "  $$file"; done

clean: ## remove .venv and what tools leave; runs/ stays
	rm -rf .venv build dist src/*.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps are written last, so an installation that was broken off is made again.
$(READY): $(LOCKED) pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "seedbed needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into .venv: once, a few minutes"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock
	@touch $@
