# Two commands for newcomers: `make demo` and `make test`. Everything else is for those who work on it.
.DEFAULT_GOAL := help
.PHONY: help demo test check lint types unit services bench soak lock clean
BIN := .venv/bin
UNIT := tests/house tests/contract tests/sidecar tests/toolkit

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 10

demo: .venv/.demo ## see it work in front of a stand-in; UPSTREAM=http://… for your own server, REPLICAS=2 with a Redis, ONCE=1 to end by itself
	$(BIN)/inference-cache demo $(if $(UPSTREAM),--upstream $(UPSTREAM)) $(if $(ONCE),--once) $(if $(REPLICAS),--replicas $(REPLICAS)) $(ARGS)

test: .venv/.dev services ## every test, against a real vLLM, Kafka, Redis, nginx and wrk; installs what it lacks; ARGS= go to pytest
	$(BIN)/python -m pytest $(ARGS)

check: lint types unit ## what to run before a commit: lint, types, layers, unit tests

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/.dev
	$(BIN)/mypy

unit: .venv/.dev
	@scripts/system_packages.sh redis-server
	$(BIN)/python -m pytest -q -m "not slow" $(UNIT) $(ARGS)

services: .venv/.dev
	@scripts/system_packages.sh nginx wrk redis-server java:openjdk-17-jre-headless mvn:maven
	@$(BIN)/python tests/services/install_vllm.py
	@$(BIN)/python tests/services/install_kafka.py
	@$(BIN)/python tests/services/install_feast.py

bench: .venv/.dev ## speed beside direct, nginx and a minimal proxy, in one run
	@scripts/system_packages.sh nginx wrk redis-server
	$(BIN)/python -m bench $(ARGS)

soak: .venv/.dev ## a million mixed requests, nothing may grow; then flushes amid faults, nothing old may be served
	@scripts/system_packages.sh redis-server
	$(BIN)/python tests/soak/soak.py $(ARGS)
	$(BIN)/python -m tests.soak.flush_chaos --minutes 10

lock: ## pin all packages again in locks/; UPGRADE=1 for the newest
	scripts/lock.sh

clean: ## remove what was built or installed here
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.dev: locks/dev.txt pyproject.toml scripts/environment.sh
	@scripts/environment.sh dev
	@touch .venv/.demo $@

.venv/.demo: locks/demo.txt pyproject.toml scripts/environment.sh
	@scripts/environment.sh demo
	@touch $@
