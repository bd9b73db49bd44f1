# The commands of this project. `make help` lists them.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
# The torch build: empty for the default of the package index, or a value of uv's --torch-backend: cpu, cu126, auto ...
TORCH_BACKEND ?=
PORT ?= 5000
PARAMS ?= params.yaml
# One image for every task, tagged with the commit: Kubeflow's cache compares image names, so a tag must never move.
IN_IMAGE := Dockerfile .dockerignore pyproject.toml requirements.txt README.md LICENSE irra components app
REGISTRY ?=
IMAGE ?= $(REGISTRY)irra-python-pipeline:$(shell git rev-parse --short=12 HEAD)$(shell test -z "$$(git status --porcelain -- $(IN_IMAGE))" || echo -dirty)
BASE_IMAGE ?= python:3.11-slim-bookworm
CLUSTER ?= pipeline/cluster.yaml
EXPERIMENT ?= irra
CHECKPOINTS ?=
OPTIONS ?=
LOSSES ?=
SEEDS ?=
# How many processes train and evaluate together, one on each GPU; empty: one.
GPUS ?=
export IRRA_GPUS := $(GPUS)
ONLY ?=
DEVICE ?=
INSTALLED := $(VENV)/.installed$(addprefix -,$(TORCH_BACKEND))
# uv counts the same version from another index as installed, so a change of the torch build reinstalls these packages.
OTHER_TORCH = $(if $(filter-out $(INSTALLED),$(wildcard $(VENV)/.installed*)),--reinstall-package torch --reinstall-package torchvision)
# The lock holds the hashes of what the package index has; nothing else is installed. Other builds of torch have hashes of
# their own: with TORCH_BACKEND, these three packages go unchecked, as does what only they need and the lock does not name.
LOCK := $(if $(TORCH_BACKEND),$(VENV)/requirements.txt,requirements.txt)
# Compile bytecode now: where Python cannot write it later, every process would compile it again.
UV_INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python
INSTALL = $(UV_INSTALL) --compile-bytecode $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND),--require-hashes) \
	--constraint $(LOCK) --requirements pyproject.toml --all-extras
# Nothing is downloaded for it: setuptools is in the lock. uv builds it each time, so it is not part of every `make setup`.
INSTALL_PROJECT = $(UV_INSTALL) --no-deps --no-build-isolation --editable .
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup preset params repro mlflow mlflow-sync experiments ablation index demo register \
	run-local image run-docker push pipeline submit test test-system test-hostile lint format bench \
	docs docs-serve lock sbom licences audit clean

help: ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

# Files of a package may get lost later. If none did, this takes half a second and no network: --offline asks no index.
setup: $(INSTALLED) ## install the pinned requirements into .venv (TORCH_BACKEND=cpu: without CUDA)
	@lost="$$($(BIN)/python tools/check_environment.py)" || exit; \
	test -z "$$lost" || echo "repairing $(VENV): $$lost"; \
	{ test -z "$$lost" && $(INSTALL) --offline 2>/dev/null; } || { $(INSTALL) $$lost && $(INSTALL_PROJECT); }

$(INSTALLED): $(LOCK) pyproject.toml | $(BIN)/uv
	$(INSTALL) $(OTHER_TORCH)
	@$(INSTALL_PROJECT)
	@rm -f $(VENV)/.installed* && touch $@

$(VENV)/requirements.txt: requirements.txt | $(BIN)/python
	@sed -E '/^(torch|torchvision|triton)==/,/[^\\]$$/{s/ *\\$$//; /^ /d}' $< > $@

# --force-reinstall: pip counts uv as installed even if its program is gone.
$(BIN)/uv: | $(BIN)/python
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.txt | \
		$(BIN)/python -m pip install --quiet --force-reinstall --require-hashes --requirement /dev/stdin

$(BIN)/python:
	@sh tools/check_python.sh "$(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

preset: setup ## write a preset to params.yaml (NAME: a file in presets/, such as cuhk-pedes, rde-cuhk-pedes, synthetic, tiny)
	@$(BIN)/python -m app.preset $(NAME)

params: setup ## rewrite params.yaml with all keys and comments; its values stay
	@$(BIN)/python -m app.preset --complete

repro: setup ## run the pipeline in dvc.yaml with params.yaml, then show the results (GPUS=4: train on four)
	@$(BIN)/python -m app.check
	@before="$$(cat dvc.lock 2>/dev/null)"; $(BIN)/dvc repro && \
		{ test "$$before" != "$$(cat dvc.lock)" || echo "Nothing has changed: data, pipeline and results are up to date."; }
	@$(BIN)/python -m app.summary

mlflow: setup ## compare runs in a browser at http://127.0.0.1:5000 (PORT=5000)
	@case "$$MLFLOW_TRACKING_URI" in http*) echo "MLFLOW_TRACKING_URI names a server that runs already: open its address in a browser";; \
	*) $(BIN)/python tools/check_port.py $(PORT) && exec $(BIN)/mlflow server --backend-store-uri "$$($(BIN)/python -m components.tracking.store)" \
		--artifacts-destination mlartifacts --host 127.0.0.1 --port $(PORT);; esac

mlflow-sync: setup ## send what could not be sent to MLflow while its server was away
	@$(BIN)/python -m components.tracking.sync

# --drop: the files that a stage depends on would have a column each.
experiments: setup ## compare DVC experiments: the parameters and metrics that differ (OPTIONS=--csv)
	@$(BIN)/dvc exp show --only-changed --drop '.*/|model$$|Executor' $(OPTIONS)

ablation: setup ## train every set of losses with every seed as DVC experiments and compare them (LOSSES, SEEDS)
	@$(BIN)/python -m components.ablation $(if $(LOSSES),--losses $(LOSSES)) $(if $(SEEDS),--seeds $(SEEDS))
	@$(BIN)/dvc exp run --run-all
	@$(BIN)/dvc exp show --json | $(BIN)/python -m components.compare

index: setup ## encode the gallery with the best model for search
	@$(BIN)/dvc repro index

demo: setup ## serve a search page at http://127.0.0.1:7860
	@$(BIN)/python -m app.web

register: setup ## put the best model into MLflow's registry if it passes the gate
	@$(BIN)/python -m components.register

run-local: setup ## run the Kubeflow pipeline on this machine, each task in a subprocess (PARAMS)
	@$(BIN)/python -m pipeline run-local --params $(PARAMS)

image: ## build the image for all tasks (REGISTRY=registry.example/, BASE_IMAGE, TORCH_BACKEND)
	docker build --tag $(IMAGE) --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg TORCH_BACKEND=$(TORCH_BACKEND) \
		--build-arg GIT_COMMIT=$$(git rev-parse HEAD) .

run-docker: setup ## run the Kubeflow pipeline on this machine, each task in a container (PARAMS, IMAGE)
	@$(BIN)/python -m pipeline run-docker --params $(PARAMS) --image $(IMAGE)

push: ## push the image to its registry (REGISTRY=registry.example/)
	docker push $(IMAGE)

pipeline: setup ## compile the Kubeflow pipeline to build/irra-pipeline.yaml (PARAMS, IMAGE, CLUSTER)
	@$(BIN)/python -m pipeline compile --params $(PARAMS) --image $(IMAGE) --cluster $(CLUSTER)

submit: setup ## start a run on a cluster (KFP_HOST=https://..., REGISTRY or IMAGE, PARAMS, CHECKPOINTS, EXPERIMENT, CLUSTER, OPTIONS)
	@$(BIN)/python -m pipeline submit --host "$(KFP_HOST)" --params $(PARAMS) --image $(IMAGE) --cluster $(CLUSTER) \
		--experiment "$(EXPERIMENT)" --checkpoints "$(CHECKPOINTS)" $(OPTIONS)

test: setup ## run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not system and not docker"

test-system: setup ## run whole pipelines with every runner, build the image, use an S3 server (half an hour; needs Docker)
	@$(BIN)/python -m pytest -rs -m "system or docker"

test-hostile: setup ## kill, damage, starve and mislead the pipeline on purpose, and count what happens (15 minutes)
	@$(BIN)/python -m tests.hostile $(OPTIONS)

lint: setup ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: setup ## fix the style where possible
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: setup ## measure speed and memory on this machine (ONLY=training,search; DEVICE=cuda)
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(DEVICE),--device $(DEVICE))

docs: setup ## build the documentation site into build/site; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: setup ## show the site at http://127.0.0.1:8000 while editing docs/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict

lock: setup ## pin the newest versions that fit, with their hashes, in requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --all-extras --generate-hashes --no-header --no-annotate --no-emit-index-url \
		pyproject.toml --output-file requirements.txt

sbom: setup ## list the installed packages in CycloneDX's form: build/sbom.json (a minute)
	@mkdir -p build && $(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json
	@echo build/sbom.json

licences: setup ## list the licences of the installed packages in build/licences.md, and print those that set conditions
	@mkdir -p build && $(BIN)/pip-licenses --from mixed --with-urls --order license --format markdown --output-file build/licences.md
	@awk -F '|' 'NR <= 2 || tolower($$4) ~ /gpl|gnu|mpl|mozilla|epl|nvidia|proprietary|commercial|unknown/' build/licences.md

# --strict: a package of which no advisory can be looked up is a failure.
audit: setup ## look up known vulnerabilities of the pinned packages (needs PyPI's JSON API)
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement requirements.txt

clean: ## remove the environment and everything that runs made, except MLflow's store
	rm -rf $(VENV) build data/downloads data/prepared data/prepared.partial.tmp data/tokens data/index data/rankings.parquet data/model-run.json model checkpoints .mypy_cache .ruff_cache .pytest_cache
