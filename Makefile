# Everything a developer or a first-time user runs. Needs make and Python >= 3.11 on the PATH; each target sets up what it
# needs in .venv/ and .cache/, inside this folder. `make` alone lists the targets.

VENV := .venv
STAMP := $(VENV)/.stamp
PYTHON ?= $(shell scripts/python.sh)
BIN := $(VENV)/bin
CACHE := $(CURDIR)/.cache

# Libraries that write into the user's home, or send usage data, are told not to.
export PIP_CACHE_DIR := $(CACHE)/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export XDG_CACHE_HOME := $(CACHE)/xdg/cache
export XDG_CONFIG_HOME := $(CACHE)/xdg/config
export XDG_DATA_HOME := $(CACHE)/xdg/data
export XDG_STATE_HOME := $(CACHE)/xdg/state
export DO_NOT_TRACK := 1
# An outer virtual environment or a foreign PYTHONPATH must not leak in.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help demo serve test check fix bench chaos lock audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

# One process for each core; a file's tests stay together, for they share what is dear to make. What starts processes of its
# own runs one after the other.
UNIT := $(BIN)/python -m pytest -q -n logical --dist loadfile --basetemp=.cache/unit-tests tests/unit

demo: $(STAMP) ## watch the loop close on real data (about 6 minutes; KEEP=1 leaves the service up)
	@$(BIN)/python -m service demo $(if $(filter-out 0,$(KEEP)),--keep)

serve: $(STAMP) ## run the service with the models in models/, state in var/
	@$(BIN)/python -m service serve

test: $(STAMP) ## run every test: unit, integration, end to end
	@scripts/system.sh postgresql prometheus chromium sqlite3
	@code=0; $(UNIT) || code=$$?; $(BIN)/python -m pytest --basetemp=.cache/tests tests/integration tests/e2e || code=$$?; exit $$code

check: $(STAMP) ## run format, lint, types, architecture contracts, unit tests (4 minutes on two cores)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy $(wildcard service tests bench models data grafana scripts)
	@$(BIN)/lint-imports
	@$(UNIT)

fix: $(STAMP) ## format the code, repair what ruff can repair
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

# What each part runs; a quick run leaves out the peers and what takes long.
BENCHES := loop decisions serving
QUICKLY := $(if $(filter-out 0,$(QUICK)),--quick)
bench-loop = $(BIN)/python bench/loop.py $(QUICKLY)
bench-decisions = $(BIN)/python bench/decisions.py $(QUICKLY)
bench-serving = $(BIN)/python bench/serving.py $(QUICKLY) $(if $(QUICKLY),,&& $(BIN)/python bench/serving_spikes.py)

bench: $(STAMP) ## reproduce all results (95 minutes; QUICK=1: 7; ONLY=loop, decisions or serving; serving needs wrk)
	@code=0; $(foreach part,$(or $(ONLY),$(BENCHES)),{ $(or $(bench-$(part)),echo "there is no part $(part); there are: $(BENCHES)" >&2; false); } || code=$$?;) exit $$code

chaos: $(STAMP) ## kill every process anywhere under load, then check the ledger (10 minutes; QUICK=1: 2)
	@$(BIN)/python bench/chaos.py $(QUICKLY) $(if $(filter-out 0,$(POSTGRES)),--postgres)

lock: ## pin all dependencies again (UPGRADE=1 to the newest that the bounds allow)
	@scripts/lock.sh "$(PYTHON)" $(if $(filter-out 0,$(UPGRADE)),--upgrade)

audit: ## look up the locked packages' known vulnerabilities (needs the network)
	@scripts/audit.sh "$(PYTHON)"

clean: ## remove all that make and the tools made (not var/)
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp carries the date of the last complete set-up: a set-up that was interrupted is done again.
$(STAMP): requirements.lock pyproject.toml
	@scripts/setup.sh "$(PYTHON)" $(VENV)
	@touch $@
