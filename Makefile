# The few commands of the house.  `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
DOCS_VENV := .venv-docs
export PYTHON

# What `make check` runs (offline), and what `make test` runs besides (real peers).
# tests/standards/test_suites.py fails when a suite is in neither.
CHECK_SUITES := tests/unit tests/property tests/standards tests/contract tests/bench
PEER_SUITES := tests/unit tests/contract tests/interop tests/e2e tests/packaging tests/bench

# What runs on a real cluster, by a command of its own, and the longest that one test there may
# take, in seconds: one restarts a hundred pods.
CLUSTER_SUITES := tests/kubernetes
CLUSTER_TIMEOUT_SECONDS := 900

# Longest that the tests of one client at one CA may take with every verb, in seconds; they share
# the machine with two others.
INTEROP_TIMEOUT_SECONDS := 900
INTEROP_REPORT := tests/interop/report.json

# An environment is up to date when it holds a stamp named after the hash of what it was made
# from.  Times of files play no part, so that a checkout or a copy changes nothing.  Of
# pyproject.toml only the part before "== Checks" counts: the rest configures tools.
hash = $(shell { sed '/^\# == Checks/q' pyproject.toml; cat agents/pyproject.toml agents/__init__.py hatch_build.py requirements/install $(1); } | sha256sum | cut -c1-16)
DEV_STAMP := penstock-dev-$(call hash,requirements/dev.txt)
RUN_STAMP := penstock-run-$(call hash,requirements/prod.txt requirements/build.txt)
DEMO_STAMP := penstock-demo-$(call hash,requirements/demo.txt)
DOCS_STAMP := penstock-docs-$(call hash,requirements/docs.txt)

# The development environment holds all that running needs.
RUNNABLE := $(firstword $(wildcard $(VENV)/$(DEV_STAMP)) $(VENV)/$(RUN_STAMP))

.PHONY: help
help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: dev
dev: $(VENV)/$(DEV_STAMP) ## Set up .venv for work on the broker (needs a package index once)

$(VENV)/$(DEV_STAMP):
	@requirements/install $(VENV) $(DEV_STAMP) --project dev

$(VENV)/$(RUN_STAMP):
	@requirements/install $(VENV) $(RUN_STAMP) --project prod build

$(DEMO_VENV)/$(DEMO_STAMP):
	@requirements/install $(DEMO_VENV) $(DEMO_STAMP) demo

$(DOCS_VENV)/$(DOCS_STAMP):
	@requirements/install $(DOCS_VENV) $(DOCS_STAMP) docs

.PHONY: ready
ready:
	@test -e $(VENV)/$(DEV_STAMP) || { \
		echo 'penstock: error: $(VENV) is missing, or older than what it is made from' >&2; \
		echo 'penstock: hint: run `make dev` first; it needs a package index, make check does not' >&2; \
		exit 1; }

# pytest keeps the tests in the form that it compiles them to, also where the shell forbids it:
# compiling 330 files anew takes each process 5 s.
.PHONY: check
check: ready ## Format, lint, types, import contracts and the fast tests; offline
	PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m tests.check $(CHECK_SUITES)

.PHONY: peers
peers: ready ## Put the real programs in place that the tests talk to (Debian; root or sudo)
	tests/peers/install

.PHONY: test
test: ## Everything: dev, check, real peers, whole deployments, both wheels
	@$(MAKE) --no-print-directory dev
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory peers
	@$(MAKE) --no-print-directory $(DEMO_VENV)/$(DEMO_STAMP)
	$(VENV)/bin/pytest -q -n 2 --hypothesis-profile=whole tests/property
	PYTHONDONTWRITEBYTECODE= $(VENV)/bin/pytest -q -p no:randomly -n 3 --dist loadfile \
		-m 'peers or e2e' $(PEER_SUITES)

.PHONY: interop
interop: ready peers ## Every client at every CA with every verb; writes docs/interop.md
	$(VENV)/bin/pytest -p no:randomly --timeout=$(INTEROP_TIMEOUT_SECONDS) \
		tests/interop/test_matrix.py --every-verb --interop-report=$(INTEROP_REPORT)
	$(VENV)/bin/python -m tests.interop.page
	@echo 'docs/interop.md'

.PHONY: demo
demo: $(RUNNABLE) $(DEMO_VENV)/$(DEMO_STAMP) ## See one certificate go through both halves; no root, no service
	@$(VENV)/bin/penstock demo --certbot $(DEMO_VENV)/bin/certbot

.PHONY: agent
agent: ## Build the agent as one file, dist/penstock-agent.pyz: the same octets everywhere
	@$(PYTHON) deploy/agent_zipapp.py

.PHONY: images
images: ## Build both images, the same digest each time; IMAGES='--base NAME --offline 3.11 --bills dist/images'
	@$(PYTHON) deploy/images.py $(IMAGES)

.PHONY: test-kubernetes
test-kubernetes: ## The chart and the sidecars on a real cluster, made here and taken down; Debian, root
	@$(MAKE) --no-print-directory dev
	tests/kubernetes/install
	$(VENV)/bin/pytest -q -p no:randomly --timeout=$(CLUSTER_TIMEOUT_SECONDS) \
		--cluster-report=docs/kubernetes-report.md $(CLUSTER_SUITES)
	@echo 'docs/kubernetes-report.md'

.PHONY: bench
bench: ready ## Measure beside the peers, about 15 min; EFFORT=--quick for 4, EFFORT=--write-docs to keep
	bench/run $(EFFORT)

# How long faults go on, in minutes, and what decides them; drawn where none is given.
MINUTES ?= 30
SEED ?=

.PHONY: soak
soak: ready ## Twenty agents, short certificates, kill -9 at random; MINUTES=30, SEED=; writes docs/soak.md
	$(VENV)/bin/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: docs
docs: $(DOCS_VENV)/$(DOCS_STAMP) ## Build the documents into build/docs
	$(DOCS_VENV)/bin/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo 'build/docs/index.html'

.PHONY: fix
fix: ready ## Format, and mend what the linter can mend
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

.PHONY: golden
golden: ready ## Write golden files and generated documents anew; review the diff
	$(VENV)/bin/pytest -q -p no:randomly -m 'not peers and not e2e' --update-golden $(CHECK_SUITES)

.PHONY: help-text
help-text: golden ## The same: README shows the output of `penstock --help`

.PHONY: news
news: ready ## Show what the next release notes would say
	$(VENV)/bin/towncrier build --draft --version next

# The lists are compiled in this order because the later ones are held to the pins of the earlier.
LOCKS := prod dev build demo docs image pip
.PHONY: lock
lock: ready ## Pin requirements/*.in into requirements/*.txt, by hash; UPGRADE=--upgrade to renew
	for list in $(LOCKS); do \
		env -C requirements ../$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
			--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
			$(UPGRADE) $$list.in --output-file $$list.txt; \
	done

.PHONY: clean
clean: ## Remove what was built and the tools' caches, not the environments
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
