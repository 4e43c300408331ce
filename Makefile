# Every target works on a fresh checkout: what it needs is installed first, into .venv, and only once.

VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
PIP := $(BIN)/python -m pip --disable-pip-version-check

# One file stays on one worker, so that a module's server and PostgreSQL start once. Two workers: the tests start
# processes of their own. Files go by their names: by their number of tests, those of few and long ones would come last,
# and one worker would wait for the other. Options given in PYTEST_ARGS come last and win (`-n 0` to debug).
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

NODE_PACKAGES := $(patsubst %/package.json,%/node_modules/.installed,$(wildcard tests/contract/*/package.json))

# Where bytecode is not to be kept, as in many container images, each process that a test starts would compile it all anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(VENV)/.installed ## Make .venv with abgate and everything development needs

.PHONY: test
test: install node-packages system-packages check ## Run the checks, then the tests (PYTEST_ARGS="tests/core -k bucket")
	$(PYTEST) $(PYTEST_ARGS)

.PHONY: soak
soak: install node-packages system-packages ## Run at full length the tests that repeat what is up to chance (an hour)
	ABGATE_TEST_SOAK=1 $(PYTEST) $$(grep -rl --include='test_*.py' 'from tests.soak import' tests)

.PHONY: check
check: install ## Run the linter, the format check and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: demo
demo: install ## Run the demonstration (ARGS="..." goes to `abgate demo`)
	$(BIN)/abgate demo $(ARGS)

.PHONY: screenshots
screenshots: install system-packages ## Take the pictures of docs/screenshots/ anew
	$(BIN)/python scripts/screenshots.py docs/screenshots

.PHONY: serve
serve: install ## Serve abgate from the folder data/ (ARGS="..." goes to `abgate serve`)
	$(BIN)/abgate serve --data data $(ARGS)

.PHONY: bench
bench: $(BENCH)/.installed ## Run the benchmarks, one after the other
	scripts/bench-tools
	@set -e; for file in $(sort $(wildcard bench/*.py)); do echo "== $$file"; $(BENCH)/bin/python "$$file"; done

.PHONY: node-packages
node-packages: $(NODE_PACKAGES) ## Install the Node clients that the contract tests drive abgate with

.PHONY: system-packages
system-packages: ## Install the browser and the Java that the tests need, unless they are there
	scripts/system-packages

.PHONY: constraints
constraints: install $(BENCH)/.installed ## Rewrite constraints.txt from what the environments hold
	$(BIN)/python scripts/write_constraints.py $(BENCH)/bin/python

.PHONY: clean
clean: ## Remove everything that was made here except data/
	rm -rf $(VENV) $(BENCH) dist .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/contract/*/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The build back ends go in first and isolation is off, because constraints do not reach an isolated build: hatchling
# for abgate, and for pyspark, which comes as source, a setuptools newer than that of a new environment.
$(VENV)/.installed: pyproject.toml constraints.txt scripts/create-venv
	scripts/create-venv $(VENV)
	$(PIP) install -c constraints.txt hatchling editables setuptools
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# Apart from .venv: the benchmarks measure other libraries too, and want the quickest build of CPython.
$(BENCH)/.installed: pyproject.toml constraints.txt scripts/create-bench-venv scripts/create-venv
	scripts/create-bench-venv $(BENCH)
	$(BENCH)/bin/python -m pip --disable-pip-version-check install -c constraints.txt hatchling editables
	$(BENCH)/bin/python -m pip --disable-pip-version-check install -c constraints.txt --no-build-isolation -e '.[bench]'
	@touch $@

tests/contract/%/node_modules/.installed: tests/contract/%/package.json scripts/node-packages | $(VENV)/.installed
	scripts/node-packages $(BIN)/python tests/contract/$*
	@touch $@
