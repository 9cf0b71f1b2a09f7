# Everything sets itself up: python3 (3.11 or newer) and make are all that a machine needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
  if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
BIN := .venv/bin
STAGE ?= dev
KEEP ?=
export PYTHONPATH := layers/common/python:.
export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help:  ## show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

# --- environments ---------------------------------------------------------------------------------------------

define environment
	@test -n "$(3)" || { echo "Python 3.11 or newer (with venv) was not found: install it, or run make PYTHON=/path/to/python"; exit 1; }
	@echo "setting up $(1) (once; a few minutes)"
	@rm -rf $(1) && $(3) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --require-hashes -r $(2)
	@touch $(1)/ready
endef

.venv/ready: requirements/dev.txt
	$(call environment,.venv,requirements/dev.txt,$(PYTHON))

.venv-sam/ready: requirements/sam.txt
	$(call environment,.venv-sam,requirements/sam.txt,$(PYTHON))

.venv-pipeline/ready: requirements/pipeline.txt
	$(call environment,.venv-pipeline,requirements/pipeline.txt,$(PYTHON))

# SageMaker's scikit-learn image has Python 3.12: only there can its libraries be had in its versions.
PYTHON_OF_IMAGE ?= $(shell for p in python3.12 "$$HOME"/.pyenv/versions/3.12.*/bin/python3.12; do \
  if "$$p" -c 'import venv, ensurepip' >/dev/null 2>&1; then echo "$$p"; break; fi; done)

.PHONY: steps
ifeq ($(PYTHON_OF_IMAGE),)
steps:
	@echo "WARNING: Python 3.12 was not found: the step scripts run with other versions of pandas and scikit-learn" >&2
	@echo "than SageMaker's image has. Install Python 3.12, or run make PYTHON_OF_IMAGE=/path/to/python3.12." >&2
else
steps: .venv-steps/ready
endif

.venv-steps/ready: requirements/steps.txt
	$(call environment,.venv-steps,requirements/steps.txt,$(PYTHON_OF_IMAGE))

# --- use ------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: .venv/ready steps  ## run the whole product on this machine: real data in, registered models out
	@$(BIN)/python -m local.demo $(if $(KEEP),--keep)

.PHONY: picture
picture: .venv/ready steps  ## run the demo, and draw its end for the README (docs/demo.svg)
	@$(BIN)/python -m local.demo --picture docs/demo.svg

.PHONY: latency
latency: .venv/ready  ## measure the time from an upload to the start of its execution, tier idle
	@$(BIN)/python -m local.latency

SEEDS ?= 1000
FAIR_SEEDS ?= 20
.PHONY: simulate
simulate: .venv/ready  ## simulate the scheduler under faults: make simulate SEEDS=5000
	@$(BIN)/python -m simulation --seeds $(SEEDS)

.PHONY: fairness
fairness: .venv/ready  ## measure fair shares, starvation bounds and large requests
	@$(BIN)/python -m simulation.fairness --seeds $(FAIR_SEEDS)

.PHONY: contention
contention: .venv/ready  ## let a hundred dispatchers contend on the local cloud's DynamoDB (takes a while)
	@$(BIN)/python -m local.contention

RUNS ?= 500
MONTH_SEED ?= 1
.PHONY: month
month: .venv/ready  ## generate a month of executions on the local cloud, and compare its books with SageMaker's side
	@$(BIN)/python -m local.month --runs $(RUNS) --seed $(MONTH_SEED)

MINUTES ?= 60
.PHONY: soak
soak: .venv/ready steps  ## let the local cloud run while its workers are killed: make soak MINUTES=60
	@$(BIN)/python -m local.soak --minutes $(MINUTES)

UPLOADS ?= 100000
.PHONY: storm
storm: .venv/ready  ## upload 100,000 times for 1,000 tenants, and look for each (takes a while)
	@$(BIN)/python -m benchmarks.storm --uploads $(UPLOADS)

REQUESTS ?= 1000000
.PHONY: day
day: .venv/ready  ## simulate a day of 100,000 tenants, a million requests and 2,000 slots (takes a while)
	@$(BIN)/python -m benchmarks.day --requests $(REQUESTS)

TENANTS ?= 1000
.PHONY: sweep-cost
sweep-cost: .venv/ready  ## say what looking for uploads of which no event told costs: make sweep-cost TENANTS=10000
	@$(BIN)/python -m benchmarks.sweep --tenants $(TENANTS)

ONLY ?=
.PHONY: bench
bench: .venv/ready  ## measure speed and cost beside what others do, and write docs/performance.md (takes a while)
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

.PHONY: onboarding
onboarding: .venv/ready  ## measure onboarding of a thousand pooled tenants, and a large deletion (takes a while)
	@$(BIN)/python -m local.onboarding --tenants $(TENANTS)

.PHONY: isolation
isolation: .venv/ready steps  ## run the isolation matrix, policy by policy and against a deployed service
	@$(BIN)/python -m pytest -q tests/unit/test_isolation.py tests/e2e/test_isolation.py

.PHONY: test
test: .venv/ready steps  ## run the tests
	@$(BIN)/python -m pytest -n 3 --dist worksteal -q --durations=10 tests

.PHONY: mutants
mutants: .venv/ready  ## take each condition of a write away, and look whether a test fails (takes a while)
	@$(BIN)/python -m tests.mutants

.PHONY: check
check: .venv/ready .venv-sam/ready check-pipeline  ## lint, types, template, security, pipeline drift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint template.yaml
	.venv-sam/bin/sam validate --lint

.PHONY: check-pipeline
check-pipeline: .venv-pipeline/ready  ## say whether definition.json and the registries are what the SDK writes
	@.venv-pipeline/bin/python -W ignore pipeline/author.py --check
	@.venv-pipeline/bin/python -W ignore pipeline/registries.py --check

.PHONY: pipeline
pipeline: .venv-pipeline/ready  ## author the pipeline's definition and the registries with the SageMaker SDK
	@.venv-pipeline/bin/python -W ignore pipeline/author.py
	@.venv-pipeline/bin/python -W ignore pipeline/registries.py

.PHONY: format
format: .venv/ready  ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# --- deploy ---------------------------------------------------------------------------------------------------

.PHONY: build
build: .venv-sam/ready  ## build the application for AWS (arm64); needs python3.13 on PATH
	.venv-sam/bin/sam build

.PHONY: deploy
deploy: .venv/ready .venv-sam/ready  ## say account and Region, and deploy what was built: make deploy STAGE=dev|staging|prod
	@region=$$($(BIN)/python -m cli.region trainyard-$(STAGE)) && \
	  .venv-sam/bin/sam deploy --config-env $(STAGE) --region "$$region"

DATA ?=
YES ?=
FROM ?=

.PHONY: aws-check
aws-check: .venv/ready .venv-sam/ready  ## look at an account before anything is made in it: make aws-check STAGE=dev
	@$(BIN)/python -m smoke check --stage $(STAGE)

.PHONY: aws-smoke
aws-smoke: .venv/ready .venv-sam/ready  ## say what the smoke suite would do in an account, with YES=1 do it
	@$(BIN)/python -m smoke run --stage $(STAGE) $(if $(YES),--yes) $(if $(FROM),--from $(FROM))

.PHONY: smoke
smoke: .venv/ready steps  ## run preflight and smoke suite in the local cloud, which skips what it cannot show
	@$(BIN)/python -m smoke check --local
	@$(BIN)/python -m smoke run --local

.PHONY: teardown
teardown: .venv/ready  ## show what a deployment has made, with YES=1 remove it: make teardown STAGE=dev YES=1 DATA=delete
	@./trainyard --stack trainyard-$(STAGE) teardown $(if $(YES),--yes) $(if $(filter delete,$(DATA)),--delete-data)

# --- upkeep ---------------------------------------------------------------------------------------------------

.PHONY: lock
lock: .venv-lock/ready  ## pin the requirements again
	for name in layers/common/python/requirements requirements/dev requirements/sam requirements/pipeline; do \
	  .venv-lock/bin/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --no-header --no-annotate --allow-unsafe --no-strip-extras $$name.in -o $$name.txt; done
	test -n "$(PYTHON_OF_IMAGE)" || { echo "requirements/steps.txt is pinned with Python 3.12 alone: it was not found"; exit 1; }
	@$(PYTHON_OF_IMAGE) -m venv .venv-lock/steps && .venv-lock/steps/bin/python -m pip install --quiet pip-tools
	.venv-lock/steps/bin/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-header --no-annotate --allow-unsafe --no-strip-extras requirements/steps.in \
	  -o requirements/steps.txt

.venv-lock/ready:
	@$(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet pip-tools && touch $@

.PHONY: clean
clean:  ## remove the environments and what was built
	rm -rf .venv .venv-sam .venv-pipeline .venv-steps .venv-lock .aws-sam .local
