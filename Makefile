# The environments are created when they are first needed. Required: python3 (3.11 or newer) and make.

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
help:  ## show the available targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

# --- environments ---------------------------------------------------------------------------------------------

define environment
	@test -n "$(3)" || { echo "Python 3.11 or newer (with venv) was not found: install it, or run make PYTHON=/path/to/python"; exit 1; }
	@echo "setting up $(1) (once; $(or $(4),a few minutes))"
	@rm -rf $(1) && $(3) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet $(5) --require-hashes -r $(2)
	@touch $(1)/ready
endef

.venv/ready: requirements/dev.txt
	$(call environment,.venv,requirements/dev.txt,$(PYTHON))

.venv-cli/ready: requirements/cli.txt
	$(call environment,.venv-cli,requirements/cli.txt,$(PYTHON),some seconds,--no-compile)

.venv-sam/ready: requirements/sam.txt
	$(call environment,.venv-sam,requirements/sam.txt,$(PYTHON))

.venv-pipeline/ready: requirements/pipeline.txt
	$(call environment,.venv-pipeline,requirements/pipeline.txt,$(PYTHON))

# SageMaker's scikit-learn image has Python 3.12; its library versions can only be installed with that version.
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
demo: .venv/ready steps  ## run the whole product on this machine, from real data to registered models
	@$(BIN)/python -m local.demo $(if $(KEEP),--keep)

.PHONY: picture
picture: .venv/ready steps  ## run the demo, and save a picture of its result for the README (docs/demo.svg)
	@$(BIN)/python -m local.demo --picture docs/demo.svg

SCREENS := overview waiting failed upload policy costs
.PHONY: screens
screens: .venv/ready steps  ## run the demo, and save pictures of the console: all in .local/screens, some in docs/console
	@$(BIN)/python -m local.demo --screens .local/screens
	@mkdir -p docs/console
	@for name in $(SCREENS); do cp .local/screens/$$name-1440-light.png docs/console/$$name.png; done
	@cp .local/screens/requests-375-dark.png docs/console/requests-narrow.png

.PHONY: latency
latency: .venv/ready  ## measure the time from an upload to the start of its execution in an idle tier
	@$(BIN)/python -m local.latency

SEEDS ?= 1000
FAIR_SEEDS ?= 20
.PHONY: simulate
simulate: .venv/ready  ## simulate the scheduler under faults: make simulate SEEDS=5000
	@$(BIN)/python -m simulation --seeds $(SEEDS)

SCHEDULES ?= 10000
.PHONY: schedules
schedules: .venv/ready  ## simulate schedules of many tenants that are due in one minute: make schedules SCHEDULES=10000
	@$(BIN)/python -m simulation.schedule_storm --tenants $(SCHEDULES)

.PHONY: fairness
fairness: .venv/ready  ## measure fair shares, starvation bounds and large requests
	@$(BIN)/python -m simulation.fairness --seeds $(FAIR_SEEDS)

READ_EVERY ?= 1
READ_TABLES ?= 40
.PHONY: reading
reading: .venv/ready steps  ## read a table written in every way, and compare predictions of rows alone and together
	@python=$$($(BIN)/python -c "from local.sagemaker.interpreter import interpreter; print(interpreter())") && \
	$$python tests/steps/reading_matrix.py pipeline/steps $(READ_EVERY) && \
	$$python tests/steps/rows_alone.py pipeline/steps $(READ_TABLES)

DRAWS ?= 100
.PHONY: drift
drift: .venv/ready steps  ## plant drift in data sets that do not move, and print how often it is found: make drift DRAWS=100
	@python=$$($(BIN)/python -c "from local.sagemaker.interpreter import interpreter; print(interpreter())") && \
	$$python tests/steps/drift_rates.py pipeline/steps $(DRAWS)

GAIN_DRAWS ?= 10
TRIALS ?= 10
.PHONY: tuning
tuning: .venv/ready steps  ## print what tuning gains over the defaults: make tuning GAIN_DRAWS=10 TRIALS=10 (takes a while)
	@python=$$($(BIN)/python -c "from local.sagemaker.interpreter import interpreter; print(interpreter())") && \
	offered=$$(PYTHONPATH=layers/common/python $(BIN)/python -m tests.offered) && \
	$$python tests/steps/tuning_gain.py pipeline/steps $(GAIN_DRAWS) $(TRIALS) "$$offered" \
		$$(PYTHONPATH=layers/common/python $(BIN)/python -c "from trainyard.domain import tuning; print(tuning.CLEAR_GAIN)")

.PHONY: tables
tables: .venv-tables/ready  ## compare the steps with scikit-learn used by hand, on tables that come with libraries
	@.venv-tables/bin/python tests/steps/library_tables.py pipeline/steps \
		layers/common/python/trainyard/typical_quality.json

.venv-tables/ready: requirements/tables.txt
	@test -n "$(PYTHON_OF_IMAGE)" || { echo "requirements/tables.txt needs Python 3.12, which was not found"; exit 1; }
	$(call environment,.venv-tables,requirements/tables.txt,$(PYTHON_OF_IMAGE))

MB ?= 50 100
.PHONY: memory
memory: .venv/ready steps  ## measure the steps' peak memory against the size of the file: make memory MB="50 100"
	@python=$$($(BIN)/python -c "from local.sagemaker.interpreter import interpreter; print(interpreter())") && \
	$$python tests/steps/memory.py pipeline/steps $(MB)

.PHONY: contention
contention: .venv/ready  ## run a hundred concurrent dispatchers against the local cloud's DynamoDB (takes a while)
	@$(BIN)/python -m local.contention

RUNS ?= 500
MONTH_SEED ?= 1
.PHONY: month
month: .venv/ready  ## generate a month of executions on the local cloud, and check the recorded costs
	@$(BIN)/python -m local.month --runs $(RUNS) --seed $(MONTH_SEED)

MINUTES ?= 60
.PHONY: soak
soak: .venv/ready steps  ## run the local cloud under load while its workers are killed: make soak MINUTES=60
	@$(BIN)/python -m local.soak --minutes $(MINUTES)

UPLOADS ?= 100000
.PHONY: storm
storm: .venv/ready  ## make 100,000 uploads for 1,000 tenants, and check each of them (takes a while)
	@$(BIN)/python -m benchmarks.storm --uploads $(UPLOADS)

.PHONY: serving
serving: .venv/ready steps  ## deploy a thousand tenants' models on one endpoint, and call them (takes a while)
	@$(BIN)/python -m benchmarks.serving --tenants $(TENANTS)

REQUESTS ?= 1000000
.PHONY: day
day: .venv/ready  ## simulate a day of 100,000 tenants, a million requests and 2,000 slots (takes a while)
	@$(BIN)/python -m benchmarks.day --requests $(REQUESTS)

TENANTS ?= 1000
.PHONY: sweep-cost
sweep-cost: .venv/ready  ## calculate what the search for uploads without an event costs: make sweep-cost TENANTS=10000
	@$(BIN)/python -m benchmarks.sweep --tenants $(TENANTS)

.PHONY: openapi
openapi: .venv/ready  ## write docs/openapi.json from the routes of the HTTP API
	@PYTHONPATH=layers/common/python $(BIN)/python -m testing.openapi

.PHONY: idle-cost
idle-cost: .venv/ready  ## print what a deployment costs in a month without a training
	@$(BIN)/python -m benchmarks.idle

.PHONY: serving-costs
serving-costs: .venv/ready  ## print what serving costs by mode and calls a day, and draw it (docs/serving-costs.svg)
	@$(BIN)/python -m benchmarks.serving_costs --picture docs/serving-costs.svg

.PHONY: pictures
pictures: .venv/ready steps  ## save pictures of what commands print in a terminal (docs/terminal)
	@$(BIN)/python -m local.pictures

.PHONY: runbooks
runbooks: .venv/ready steps  ## plant faults in the local cloud, and write docs/runbooks.md from what the commands print
	@$(BIN)/python -m local.runbooks

REQUESTS_LISTED ?= 100000
.PHONY: api-latency
api-latency: .venv/ready  ## measure routes of the HTTP API against the calls of AWS that they make, with 100,000 requests
	@$(BIN)/python -m benchmarks.api --requests $(REQUESTS_LISTED)

ONLY ?=
.PHONY: bench
bench: .venv/ready  ## compare speed and cost with other designs, and write docs/performance.md (takes a while)
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

.PHONY: command-line
command-line: .venv/ready steps  ## measure how long each command takes, from help to reads on the local cloud
	@$(BIN)/python -m benchmarks.command_line

.PHONY: onboarding
onboarding: .venv/ready  ## measure the onboarding of a thousand pooled tenants and a large deletion (takes a while)
	@$(BIN)/python -m local.onboarding --tenants $(TENANTS)

.PHONY: isolation
isolation: .venv/ready steps  ## test the isolation of tenants, policy by policy and in a deployed service
	@ISOLATION_EVERY_KEY=1 $(BIN)/python -m pytest -q tests/unit/test_isolation.py tests/e2e/test_isolation.py

.PHONY: test
test: .venv/ready steps  ## run the tests
	@$(BIN)/python -m pytest -n 3 --dist worksteal -q --durations=10 -m "not thorough" tests

.PHONY: test-thorough
test-thorough: .venv/ready steps  ## run the tests that make test leaves out: long ones, and those on a second fake
	@$(BIN)/python -m pytest -n 3 --dist worksteal -q --durations=5 -m thorough tests

.PHONY: mutants
mutants: .venv/ready  ## remove each condition of a write in turn, and check that a test fails (takes a while)
	@$(BIN)/python -m tests.mutants

.PHONY: check-install
check-install:  ## install the command line as a package of its own, and run it
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" && \
	  "$$folder/bin/python" -m pip install --quiet . && cd / && env -u PYTHONPATH "$$folder/bin/trainyard" --version && \
	  AWS_REGION=us-east-1 env -u PYTHONPATH "$$folder/bin/trainyard" prices show > /dev/null

.PHONY: check
check: .venv/ready .venv-sam/ready check-pipeline check-install  ## lint, types, template, security, pipeline drift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint template.yaml
	.venv-sam/bin/sam validate --lint

.PHONY: check-pipeline
check-pipeline: .venv-pipeline/ready  ## check that definition.json and the registries match the SDK's output
	@.venv-pipeline/bin/python -W ignore pipeline/author.py --check
	@.venv-pipeline/bin/python -W ignore pipeline/registries.py --check

.PHONY: pipeline
pipeline: .venv-pipeline/ready  ## generate the pipeline's definition and the registries with the SageMaker SDK
	@.venv-pipeline/bin/python -W ignore pipeline/author.py
	@.venv-pipeline/bin/python -W ignore pipeline/registries.py

.PHONY: format
format: .venv/ready  ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# --- deploy ---------------------------------------------------------------------------------------------------

.PHONY: build
build: .venv-sam/ready  ## build the application for AWS (arm64); needs python3.13 on PATH
	.venv-sam/bin/sam build

PARAMETERS ?=
export PARAMETERS
# Of samconfig.toml: the option replaces them, it does not add to them.
OVERRIDES := "import sys, tomllib; config = tomllib.load(open('samconfig.toml', 'rb')); \
  print(config[sys.argv[1]]['deploy']['parameters']['parameter_overrides'])"

.PHONY: deploy
deploy: .venv/ready .venv-sam/ready  ## deploy: make deploy STAGE=dev|staging|prod PARAMETERS="AlarmEmail=you@example.com"
	@region=$$($(BIN)/python -m cli.region trainyard-$(STAGE)) && \
	  .venv-sam/bin/sam deploy --config-env $(STAGE) --region "$$region" \
	  $(if $(PARAMETERS),--parameter-overrides "$$($(BIN)/python -c $(OVERRIDES) $(STAGE)) $$PARAMETERS")

DATA ?=
YES ?=
FROM ?=

.PHONY: aws-check
aws-check: .venv/ready .venv-sam/ready  ## check an account before anything is created in it: make aws-check STAGE=dev
	@$(BIN)/python -m smoke check --stage $(STAGE)

.PHONY: aws-smoke
aws-smoke: .venv/ready .venv-sam/ready  ## show what the smoke suite would do in an account; with YES=1, run it
	@$(BIN)/python -m smoke run --stage $(STAGE) $(if $(YES),--yes) $(if $(FROM),--from $(FROM))

.PHONY: smoke
smoke: .venv/ready steps  ## run the preflight and the smoke suite in the local cloud, without the steps that need AWS
	@$(BIN)/python -m smoke check --local
	@$(BIN)/python -m smoke run --local

.PHONY: teardown
teardown: .venv/ready  ## show what would be deleted; with YES=1, delete it: make teardown STAGE=dev YES=1 DATA=delete
	@./trainyard --stack trainyard-$(STAGE) teardown $(if $(YES),--yes) $(if $(filter delete,$(DATA)),--delete-data)

# --- upkeep ---------------------------------------------------------------------------------------------------

.PHONY: lock
lock: .venv-lock/ready  ## update the pinned requirements
	for name in layers/common/python/requirements pipeline/requirements requirements/dev requirements/cli requirements/sam requirements/pipeline; do \
	  .venv-lock/bin/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --no-header --no-annotate --allow-unsafe --no-strip-extras $$name.in -o $$name.txt; done
	test -n "$(PYTHON_OF_IMAGE)" || { echo "requirements/steps.txt needs Python 3.12, which was not found"; exit 1; }
	@$(PYTHON_OF_IMAGE) -m venv .venv-lock/steps && .venv-lock/steps/bin/python -m pip install --quiet pip-tools
	for name in steps tables; do .venv-lock/steps/bin/pip-compile --quiet --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate --allow-unsafe --no-strip-extras \
	  requirements/$$name.in -o requirements/$$name.txt; done

.venv-lock/ready:
	@$(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet pip-tools && touch $@

.PHONY: clean
clean:  ## delete the environments and the build output
	rm -rf .venv .venv-cli .venv-sam .venv-pipeline .venv-steps .venv-tables .venv-lock .aws-sam .local
