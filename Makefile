# Two commands for newcomers: `make demo` and `make test`. Everything else is for those who work on it.
.DEFAULT_GOAL := help
.PHONY: help demo test check lint types unit services cluster e2e bench soak lock clean
BIN := .venv/bin
UNIT := tests/house tests/contract tests/artifacts tests/operator tests/sidecar tests/toolkit

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 10

demo: .venv/.demo ## see it work in front of a stand-in; UPSTREAM=http://… for your own server, REPLICAS=2 with a Redis, ONCE=1 to end by itself
	$(BIN)/inference-cache demo $(if $(UPSTREAM),--upstream $(UPSTREAM)) $(if $(ONCE),--once) $(if $(REPLICAS),--replicas $(REPLICAS)) $(ARGS)

test: .venv/.dev services ## every test, against a real vLLM, Kubernetes, Kafka, Redis, nginx and wrk; installs what it lacks; ARGS= go to pytest
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
	$(BIN)/python -m pytest -q -n 3 -m "not slow and not services" $(UNIT) $(ARGS)

services: .venv/.dev cluster
	@scripts/system_packages.sh nginx wrk redis-server java:openjdk-17-jre-headless mvn:maven
	@$(BIN)/python tests/services/install_vllm.py
	@$(BIN)/python tests/services/install_kafka.py
	@$(BIN)/python tests/services/install_feast.py

# A static program needs libc6-dev, which has gencat.
cluster: .venv/.dev ## build Kubernetes, Helm and cert-manager, once a machine (8 minutes on 2 cores), for the tests in tests/cluster
	@scripts/system_packages.sh etcd:etcd-server containerd runc /usr/lib/cni/bridge:containernetworking-plugins iptables nft:nftables
	@scripts/system_packages.sh ip:iproute2 nsenter:util-linux gcc gencat:libc6-dev buildah mmdebstrap
	@$(BIN)/python -m tests.cluster.install_kubernetes

e2e: .venv/.dev cluster ## on a real Kubernetes (its own, or the one in KUBECONFIG): install, hits, version bump, rollback, uninstall
	$(BIN)/python -m pytest tests/cluster/test_story.py -o log_cli=true --log-cli-level=INFO --log-cli-format='%(asctime)s %(message)s' $(ARGS)

bench: .venv/.dev ## speed beside direct, nginx and a minimal proxy, in one run
	@scripts/system_packages.sh nginx wrk redis-server
	$(BIN)/python -m bench $(ARGS)

soak: .venv/.dev cluster ## a million mixed requests, nothing may grow; flushes amid faults, nothing old may be served; killed workers; GitOps
	@scripts/system_packages.sh redis-server
	$(BIN)/python tests/soak/soak.py $(ARGS)
	$(BIN)/python -m tests.soak.flush_chaos --minutes 10
	$(BIN)/python -m tests.services.fail_open_soak --seconds 600
	REAPPLYING_SECONDS=100 $(BIN)/python -m pytest -q tests/cluster/test_controller_repair.py -k gitops
	STREAM_SECONDS=60 AWAY_SECONDS=30 $(BIN)/python -m pytest -q tests/cluster/test_node_drain.py tests/cluster/test_node_operator_faults.py

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
