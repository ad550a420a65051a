# Each target that needs Python packages first makes .venv what the lock files say.
.DEFAULT_GOAL := help
.PHONY: help setup run reproduce-small test test-all check lint format types bench docs docs-serve dist lock test-release test-system slurm-up \
	slurm-down clean

VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: once leaves a warning for every package that a configured mirror lacks. Errors are still printed.
# Nor are the 13,000 modules compiled, of which a run imports a fifth: Python compiles those when it first imports them.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-compile

# Containers often set this. Each process would then compile anew what it imports, a fifth of those modules: 10 s of a run.
# What make runs writes them once; what is typed by hand reads them.
WRITES_NONE := $(PYTHONDONTWRITEBYTECODE)
unexport PYTHONDONTWRITEBYTECODE

# The first that works: a version manager may leave a python3.12 on PATH that only prints an error.
USABLE := -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1
PYTHON ?= $(shell for python in python3.12 python3.11 python3.13 python3.14 python3; do \
	$$python $(USABLE) && echo $$python && break; done)

# The choice of CUDA is kept in .venv, so that a plain `make run` after `CUDA=13 make setup` keeps the GPU.
CUDA ?= $(shell cat $(VENV)/cuda 2>/dev/null)
ifneq ($(filter-out 12 13,$(CUDA)),)
$(error CUDA=$(CUDA): choose 12 or 13)
endif
LOCKS := requirements.lock $(if $(CUDA),requirements-cuda$(CUDA).lock)
DOCS := $(VENV)/docs
INSTALLED := $(VENV)/installed-$(if $(CUDA),cuda$(CUDA),cpu)
READY := $(VENV)/ready
COST := $(if $(CUDA),3 GB to download and 5 to 20 minutes,250 MB to download and 1 to 5 minutes)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## make .venv from the lock (CUDA=13 or CUDA=12 for NVIDIA GPUs; PYTHON=python3.11 for another Python)

# Stamps are written last, so what was interrupted half-way starts afresh.
$(INSTALLED): $(LOCKS)
	@$(or $(PYTHON),false) $(USABLE) || { echo "setup: no Python >= 3.11 with venv found: install one" \
		"(Debian, Ubuntu: sudo apt install python3-venv) or name one (make setup PYTHON=/path/to/python3)" >&2; exit 1; }
	@echo "setup: $(PYTHON) installs $(LOCKS) into $(VENV): $(COST)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --require-hashes $(LOCKS:%=-r %)
	@$(if $(CUDA),echo $(CUDA) >$(VENV)/cuda)
	@touch $@

$(READY): $(INSTALLED) pyproject.toml
	@$(PIP) --no-build-isolation --editable .
	@$(if $(WRITES_NONE),$(BIN)/python -c "import ntklens.jobs.compute; import ntklens.tasks.sweep; import ntklens.tasks.report")
	@touch $@

run: $(READY) ## train an ensemble on the digits dataset and measure how its tangent kernel moves
	@echo "run: imports JAX, compiles, trains; the first time takes about a minute"
	$(BIN)/python -m ntklens.run
	@echo "to type these lines: source $(BIN)/activate"

# The sweeps that carry the story; what is finished is not trained again, so that an interrupted one goes on.
STORY := mnist_width_small mnist_data_small cifar10_transition_small parameterization_small input_dim_small cnn_width_small
comma := ,
reproduce-small: $(READY) ## the six small experiments that carry the story, and one page (MNIST, CIFAR-10; some 40 minutes on two quiet cores)
	@set -e; for name in $(STORY); do $(BIN)/python -m ntklens.run -m experiment=$$name; done
	$(BIN)/python -m ntklens.run task=report 'name=[$(subst $() ,$(comma),$(strip $(STORY)))]'

# By file: one process has what the tests of a file share, often a whole sweep.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile
test: $(READY) ## run the tests on all cores, but those marked slow: minutes
	$(PYTEST)

test-all: $(READY) ## run the slow ones too: killed processes, broken servers, coverage of intervals
	$(PYTEST) -m "not system and not release"

check: lint types docs test-all ## lint, types, docs and test-all: what every change must pass

lint: $(READY) ## find mistakes, and whatever make format would change
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

format: $(READY) ## format the code, and fix what ruff can fix
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

types: $(READY) ## check the types
	$(BIN)/python -m mypy

bench: $(READY) ## run every benchmark (many minutes, on a machine that does nothing else)
	@set -e; for script in $(filter-out %/timing.py %/gpu.py %/page.py,$(wildcard benchmarks/*.py)); do echo "bench: $$script"; $(BIN)/python $$script; done
	$(BIN)/python benchmarks/page.py

# A group of packages of their own: neither a run nor the tests need them.
$(DOCS): requirements-docs.lock $(READY)
	@echo "docs: installs requirements-docs.lock into $(VENV): 40 MB to download"
	@$(PIP) --require-hashes -r requirements-docs.lock
	@touch $@

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs
docs: $(DOCS) ## build the documentation into site/; a broken link, or a public name without documentation, fails
	@$(MKDOCS) build --strict --quiet
	@echo "docs: open site/index.html"

docs-serve: $(DOCS) ## show the documentation in a browser while it is written
	@$(MKDOCS) serve --strict --watch src --watch examples --watch benchmarks

# RELEASE_PYTHONS=python3.13 and RELEASE_JAX=lowest check one of each; by default all Pythons found, both ends of JAX's range.
dist: $(DOCS) ## build sdist and wheel, check them, run the wheel in fresh environments (downloads all packages)
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist . | tail -1
	@$(BIN)/python -m twine check --strict dist/*
	@$(BIN)/python rehearsal/wheel.py dist/*.whl $(addprefix --python ,$(RELEASE_PYTHONS)) $(addprefix --jax ,$(RELEASE_JAX))

test-system: $(READY) ## test a fresh copy of the repository, an installed wheel, bad disks, a real SLURM (downloads all packages; needs root)
	$(PYTEST) -m "system and not release" tests/system

test-release: $(READY) ## before a release: kills, W&B, a real SLURM of every network; the longest tests (needs root)
	$(PYTEST) -m release

slurm-up: ## start a real SLURM on this machine, to rehearse a sweep on (Debian packages; needs root)
	@$(or $(PYTHON),python3) rehearsal/cluster.py up

slurm-down: ## end it, and remove what it kept
	@$(or $(PYTHON),python3) rehearsal/cluster.py down

# Releases already in the lock files stay where they still fit: remove the files first to take newer ones.
COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"
lock: ## write the lock files anew from pyproject.toml
	@echo "lock: resolving for Linux and macOS, Python 3.11 and later: about a minute"
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install -qq --disable-pip-version-check uv==0.13.9
	@$(COMPILE) pyproject.toml --group dev --group reference --output-file requirements.lock
	@$(COMPILE) --group docs --group release --constraint requirements.lock --output-file requirements-docs.lock
	@for cuda in 12 13; do echo "jax[cuda$$cuda] ; sys_platform == 'linux'" | \
		$(COMPILE) - --constraint requirements.lock --output-file requirements-cuda$$cuda.lock \
		$(addprefix --no-emit-package ,jax jaxlib ml-dtypes numpy opt-einsum scipy) || exit 1; done

clean: ## remove .venv and every cache (results in multirun/ stay)
	rm -rf .venv .venv-lock build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/ntklens"
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
