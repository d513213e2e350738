# Each target does all of its own set-up. PYTHON may name any Python from 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# No hashes: constraints.txt says why.
TORCH := torch==2.13.0
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test tests quick fuzz oldest package lint format docs tutorial clean

# FLAGS are those of `prunus run`, such as `--distill.tokens 50_000`.
quickstart: $(INSTALLED)
	$(BIN)/prunus run recipes/quickstart.yaml $(FLAGS)

# A process a core, of one thread each: tests are small, and threads that share cores wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

# Both at once: mypy without its cache takes 40 seconds of one core.
test: $(INSTALLED)
	$(MAKE) --jobs 2 tests lint

tests: $(INSTALLED)
	$(PYTEST)

# Without whole runs and tests of several processes.
quick: lint
	$(PYTEST) -m "not slow and not processes"

# Tests that hold for any input, with TIMES as many examples as in CI, drawn anew.
TIMES ?= 20
fuzz: $(INSTALLED)
	PRUNUS_FUZZ=$(TIMES) $(BIN)/python -m pytest -m fuzz

# The fast tests with the oldest releases that pyproject.toml allows, in an environment of their own; torch as pinned.
# PART=2/6 runs one of six parts of them, WORKERS=1 in one process.
OLDEST := .venv-oldest
PART ?= 0/1
WORKERS ?= auto
oldest:
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/pip install --quiet uv $(TORCH)
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct $(TORCH) --editable '.[dev]'
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not slow and not processes" \
		--part $(PART)

# Wheel and sdist: checked by twine, then each installed in an empty environment, in which the quickstart is planned.
package: $(INSTALLED)
	rm -rf dist build
	$(BIN)/python -m hatchling build
	$(PYTHON) -m venv build/twine && build/twine/bin/pip install --quiet twine
	build/twine/bin/twine check --strict dist/*
	for file in dist/*; do \
		$(PYTHON) -m venv --clear build/installed && build/installed/bin/pip install --quiet $(TORCH) "$$file[gguf]" && \
		build/installed/bin/prunus plan recipes/quickstart.yaml || exit 1; \
	done

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarks docs/site
	$(BIN)/ruff format --check src tests benchmarks docs/site
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix src tests benchmarks docs/site
	$(BIN)/ruff format src tests benchmarks docs/site

# Executes the tutorial, and builds the site into build/site. Nothing is fetched but the packages, once.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m docs.site.notebook
	$(BIN)/python -m docs.site.build

# The tutorial with its outputs, anew.
tutorial: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m docs.site.notebook --write

$(VENV)/.docs: $(INSTALLED) constraints-docs.txt
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement constraints-docs.txt
	$(BIN)/pip check --quiet
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement constraints.txt
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/pip check --quiet
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
