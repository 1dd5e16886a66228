# Everything runs in .venv, which `make` fills from requirements.lock by itself. uv is fetched when it is missing.

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := .venv/bin
STAMP := .venv/.installed
DUCKDB1 := .venv-duckdb1/bin/python
STAND_INS := .venv-bigquery/.installed
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# Each start of a process would compile what it imports, where the environment forbids to write bytecode.
export PYTHONDONTWRITEBYTECODE :=

# Where tests find what must not be in their own environment.
PLACES := KLINEHOUSE_TEST_DUCKDB1=$(CURDIR)/$(DUCKDB1) KLINEHOUSE_TEST_BIGQUERY=$(CURDIR)/.venv-bigquery/bin/python \
	KLINEHOUSE_TEST_ZETASQL=$(CURDIR)/.venv-bigquery/zetasql

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-bigquery check check-code check-types check-sql check-assets bench bench-live bench-bigquery faults torture lock clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## Install what is locked (all other targets do it themselves)

demo: $(STAMP) ## Six years of three symbols from the simulated exchange, built and published
	$(RUN)/klinehouse demo

up: $(STAMP) ## Live bars and the Dagster UI on the demo's home; `make up SOURCE=binance`: from the real exchange
ifeq ($(SOURCE),binance)
	$(if $(HOUSE),KLINEHOUSE_HOME=$(HOUSE)) $(RUN)/klinehouse up
else
	KLINEHOUSE_HOME=$(or $(HOUSE),.klinehouse-demo) $(RUN)/klinehouse up --simulate
endif

# One worker more than there are cores: a good part of the time tests wait for processes. Files go to the workers in
# order: by default those with few tests, which are long ones, would come last.
test: $(STAMP) $(DUCKDB1) $(STAND_INS) ## Run all tests
	$(PLACES) $(RUN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 12 $(TESTS)

test-bigquery: $(STAMP) $(STAND_INS) ## Of these, the tests of BigQuery and Cloud Storage against stand-ins
	$(PLACES) $(RUN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m bigquery

check: check-code check-types check-sql check-assets ## Format, lint, import rule, types, SQL lint, Dagster definitions

check-code: $(STAMP)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/lint-imports

check-types: $(STAMP)
	$(RUN)/mypy

check-sql: $(STAMP)
	mkdir -p .cache && KLINEHOUSE_WAREHOUSE_PATH=.cache/klinehouse.duckdb $(RUN)/sqlfluff lint dbt_project/models

check-assets: $(STAMP)
	PATH="$(CURDIR)/$(RUN):$$PATH" KLINEHOUSE_HOME=.cache/check $(RUN)/dg check defs

bench: $(STAMP) ## Measure, and write docs/benchmarks.md and the figures of docs/indicators
	$(RUN)/python benchmarks/report.py history

bench-live: $(STAMP) ## The same of the live path: docs/benchmarks-live.md (three quarters of an hour)
	$(RUN)/python benchmarks/report.py live

bench-bigquery: $(STAMP) $(STAND_INS) ## The same on BigQuery's emulator: docs/benchmarks-bigquery.md (some minutes, 20 GB of memory)
	$(RUN)/python benchmarks/report.py bigquery

faults: $(STAMP) ## The fault tests with a kill before every call of every form, of which `make test` leaves out some
	KLINEHOUSE_TEST_ALL_POINTS=1 $(RUN)/pytest -n auto --dist loadfile tests/faults

torture: $(STAMP) ## Cut the power at every point (root; ext4 and XFS in loop images); `make torture MINUTES=15`
	PYTHONPATH=tests $(RUN)/python -m faults.torture --states $(or $(STATES),8000) --minutes $(or $(MINUTES),1440)

lock: $(UV) ## Resolve the dependencies anew
	$(UV) pip compile pyproject.toml --extra dev --universal --generate-hashes --no-header --python-version 3.11 -o requirements.lock

clean: ## Remove environments, caches and the demo; not .klinehouse
	rm -rf .venv .venv-duckdb1 .venv-bigquery .uv .cache .klinehouse-demo dbt_project/target dbt_project/logs logs
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Bytecode is compiled now: dagster and dbt are some 10,000 modules, and the first start would take half a minute.
$(STAMP): requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.14' --no-python-downloads .venv
	VIRTUAL_ENV=.venv $(UV) pip sync --require-hashes --compile-bytecode requirements.lock
	VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# Serving must open in drivers built on DuckDB 1.x; one test asks such a driver.
$(DUCKDB1): tests/duckdb1.lock | $(UV)
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.14' --no-python-downloads .venv-duckdb1
	VIRTUAL_ENV=.venv-duckdb1 $(UV) pip sync --quiet --require-hashes tests/duckdb1.lock
	touch $@

# Stand-ins for Google Cloud; what this machine cannot run is left out, and its tests skip.
$(STAND_INS): tests/bigquery.lock tests/stand_ins.sh | $(UV)
	tests/stand_ins.sh $(UV)

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --require-hashes -r requirements-uv.lock
