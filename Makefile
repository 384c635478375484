# Two commands are all a newcomer needs: `make demo` and `make test`. The rest are their parts.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
PYTHON := $(VENV)/bin/python
# An interpreter that every user may execute: root's own may lie where others cannot read, and the testbed's `dev`
# runs meshdev out of this environment.
SYSTEM_PYTHON := $(shell for p in /usr/bin/python3 /usr/local/bin/python3 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)

# Of the traffic-manager's image: its name, what builds it, the Python of its base (the Dockerfile's BASE).
IMAGE ?= meshdev/traffic-manager:0.1.0
BUILDER ?= docker build
IMAGE_PYTHON := 3.13

# tests/e2e/lock.py
TESTBED_LOCK := /run/meshdev-e2e.lock

.PHONY: help setup cluster demo lint test bench docs image down

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.complete ## .venv with meshdev and the tools of development

$(VENV)/.complete: pyproject.toml
	@test -n "$(SYSTEM_PYTHON)" || { echo "meshdev needs Python 3.11 or later" >&2; exit 1; }
	@$(SYSTEM_PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "installing python3-venv" >&2; apt-get install -y -q python3-venv >/dev/null || \
		{ apt-get update -q >/dev/null && apt-get install -y -q python3-venv >/dev/null; }; }
	@echo "setup: .venv from $(SYSTEM_PYTHON)"
	@umask 022; test -x $(PYTHON) || $(SYSTEM_PYTHON) -m venv $(VENV)
	@umask 022; $(PYTHON) -m pip install -q --disable-pip-version-check -e '.[dev]'
	@# xds-protos has older copies of the modules of these two, and the package that is installed last has its own.
	@umask 022; $(PYTHON) -m pip install -q --disable-pip-version-check --no-deps --force-reinstall \
		$$($(PYTHON) -m pip freeze | grep -E '^(googleapis-common-protos|opentelemetry-proto)==')
	@touch $@

cluster: setup ## the testbed: a real Kubernetes, two laptops and a small internet, in namespaces
	@$(PYTHON) -m tests.cluster up

demo: cluster ## the story: a laptop is connected to Kubernetes, used, and disconnected
	@$(PYTHON) -m demo

lint: setup ## ruff, mypy --strict, the arrows between packages
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache

test: lint ## everything: lint, unit tests, tests in namespaces, tests on two kinds of cluster; what fails runs once more
	@$(PYTHON) -m tests.flaky --every-cluster

# With the lock of the tests that use the testbed: whatever else happens there would be measured, too.
bench: setup ## meshdev against kubectl port-forward, sidecars against bare apps, as ratios
	@$(PYTHON) -m bench.tools
	@flock --close $(TESTBED_LOCK) sh -c \
		'$(PYTHON) -m tests.cluster up && $(PYTHON) -m tests.cluster exec -- $(PYTHON) -m bench $(BENCH_FLAGS)'

docs: setup ## the pages that are made of the code: docs/cli.md, the man page and docs/schemas
	@$(PYTHON) -m meshdev.cli.reference docs
	@$(PYTHON) -m tests.schemas

image: setup ## the traffic-manager's image (IMAGE=name, BUILDER='podman build')
	@rm -rf build/image && mkdir -p build/image
	@$(PYTHON) -c "import tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
		print(*extras['manager'], *extras['cluster'], *extras['otlp'], sep='\n')" > build/image/requirements
	@$(PYTHON) -m pip download -q --disable-pip-version-check --only-binary=:all: \
		--python-version $(IMAGE_PYTHON) --dest build/image/wheels --requirement build/image/requirements
	@cp -r meshdev images/traffic-manager/Dockerfile build/image/
	@chmod -R a+rX build/image  # the container control runs as nobody
	$(BUILDER) --tag '$(IMAGE)' build/image

down: ## remove the testbed from this machine
	@test ! -x $(PYTHON) || $(PYTHON) -m tests.cluster down
