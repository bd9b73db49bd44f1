# Every command a person types. `make help` lists them.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
UV_VERSION := 0.13.9
# Which torch build: empty for the package index's own, or what uv's --torch-backend knows: cpu, cu126, cu128, auto ...
TORCH_BACKEND ?=
PORT ?= 5000
INSTALLED := $(VENV)/.installed$(addprefix -,$(TORCH_BACKEND))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup repro test lint format deps bench mlflow preset lock clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## install the pinned requirements into .venv (TORCH_BACKEND=cpu for a machine without CUDA)

$(INSTALLED): requirements.txt pyproject.toml
	@sh tools/check_python.sh "$(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(addprefix --torch-backend=,$(TORCH_BACKEND)) \
		--constraint requirements.txt --editable '.[stages,pipeline,search,dev]'
	@rm -f $(VENV)/.installed* && touch $@

repro: setup ## run the pipeline of dvc.yaml with params.yaml, then show its results
	@$(BIN)/dvc repro
	@$(BIN)/python -m components.summary

test: setup ## run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: setup ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: setup ## apply the style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

deps: setup ## write each stage's modules into dvc.yaml, after imports changed
	@$(BIN)/python -m tools.list_stage_code

bench: setup ## measure speed and memory on this machine
	@$(BIN)/python -m benchmarks

mlflow: setup ## open the experiments in a browser, at http://127.0.0.1:5000 (PORT=5000)
	$(BIN)/mlflow server --backend-store-uri "$$($(BIN)/python -m components.mlflow_runs)" --artifacts-destination mlartifacts \
		--host 127.0.0.1 --port $(PORT)

preset: setup ## write a preset to params.yaml (NAME=cuhk-pedes, icfg-pedes, rstpreid, synthetic, clip-baseline, tiny)
	@$(BIN)/python -m components.preset $(NAME)

lock: setup ## pin the newest versions that fit into requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --all-extras --no-header --no-annotate --no-emit-index-url pyproject.toml \
		--output-file requirements.txt

clean: ## remove the environment and everything that runs have made, MLflow's store excepted
	rm -rf $(VENV) data/prepared data/tokens data/rankings.parquet model checkpoints .mypy_cache .ruff_cache .pytest_cache
