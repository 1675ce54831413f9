.DEFAULT_GOAL := help
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# The package under its import name, as setup.cfg maps it: ty does not follow the import hook of an editable installation.
SOURCES := $(VENV)/src/deepavfusion
SUBPACKAGES := processors training

help:  ## show this text
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

env: $(INSTALLED)  ## make the environment .venv (done by the other targets where absent)

$(INSTALLED): setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else f"Python 3.10 or later is needed, this is {sys.version}")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: env  ## pre-train a tiny model on the built-in scenes and show what it learned (minutes on 2 CPU cores)
	$(BIN)/deepavfusion pretrain scenes_tiny run.output_dir=runs/quickstart

results: env  ## fine-tune all tasks on the built-in scenes, with and without the quickstart's weights, and write the tables
	test -f runs/quickstart/results.json || $(MAKE) quickstart
	$(BIN)/python -m deepavfusion.training.scene_results --pretrained runs/quickstart

ablations: env  ## pre-train variants of the quickstart's model on the built-in scenes and write their table (hours; resumes)
	$(BIN)/python -m deepavfusion.training.ablations

test: env  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-slow: env  ## run the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow

lint: env  ## check style, names, attributes and calls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(SOURCES) && mkdir -p $(SOURCES)
	ln -s "$(CURDIR)"/modeling_deepavfusion/*.py $(SUBPACKAGES:%="$(CURDIR)/%") $(SOURCES)
	$(BIN)/ty check

format: env  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: help env quickstart results ablations test test-slow lint format
