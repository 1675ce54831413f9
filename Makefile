.DEFAULT_GOAL := help
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
LOWEST := .venv-lowest
NEWEST := .venv-newest
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python 3.11 or later is needed, this is {sys.version}")'
# Beside a folder named deepavfusion, such as this one, Python would import that folder instead: the finder of the editable
# installation comes last unless this line of a .pth file moves it to the front.
FIND_FIRST = echo 'import sys; sys.meta_path.sort(key=lambda finder: "__editable___deepavfusion" not in str(finder))' \
	> "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/deepavfusion_first.pth"
PYTEST = -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not network and not ecosystem"
# The package under its import name, as setup.cfg maps it: ty does not follow the import hook of an editable installation.
SOURCES := $(VENV)/src/deepavfusion
SUBPACKAGES := inference processors training
LINK_SOURCES = rm -rf $(SOURCES) && mkdir -p $(SOURCES) \
	&& ln -s "$(CURDIR)"/modeling_deepavfusion/*.py $(SUBPACKAGES:%="$(CURDIR)/%") $(SOURCES) \
	&& ln -sfn "$(CURDIR)/training/cli" $(VENV)/src/deepavfusion_cli
# The common tests of transformers are in its source distribution, not in its wheel. TRANSFORMERS_SOURCE=PATH names a
# checkout of the installed version instead.
SUITE := $(VENV)/transformers-source
DOWNLOAD_SUITE = $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary transformers \
	--dest $(SUITE) "transformers==$$($(BIN)/python -c 'from importlib.metadata import version; print(version("transformers"))')" \
	&& tar xzf $(SUITE)/transformers-*.tar.gz --directory $(SUITE) --strip-components 1

help:  ## list all targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

env: $(INSTALLED)  ## create the environment .venv (other targets do so if needed)

$(INSTALLED): setup.cfg constraints.txt
	$(CHECK_PYTHON)
	@echo "Setting up $(VENV): the first time, this downloads about 3 GB and takes a few minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(FIND_FIRST)
	touch $@

quickstart: env  ## pre-train and evaluate a tiny model on the built-in scenes (minutes on 2 CPU cores)
	$(BIN)/deepavfusion pretrain scenes_tiny run.output_dir=runs/quickstart

pretraining: env  ## pre-train on the built-in scenes with three seeds and write the tables (hours; resumes)
	$(BIN)/python -m deepavfusion.training.experiments.pretraining --seeds 3

results: env  ## fine-tune all tasks on the built-in scenes, with and without pre-training, and write the tables (resumes)
	test -f runs/scenes_tiny_long/evaluation.json || $(BIN)/deepavfusion pretrain scenes_tiny_long
	$(BIN)/python -m deepavfusion.training.experiments.scenes --pretrained runs/scenes_tiny_long

labels: env  ## fine-tune with few labels, with and without pre-training, and write table and figure (resumes)
	test -f runs/scenes_tiny_long/evaluation.json || $(BIN)/deepavfusion pretrain scenes_tiny_long
	$(BIN)/python -m deepavfusion.training.experiments.label_efficiency

objectives: env  ## pre-train with every objective for equal time and write their table (hours; resumes)
	$(BIN)/python -m deepavfusion.training.experiments.objectives

ablations: env  ## pre-train variants of the quickstart's model and write their tables (hours; resumes)
	$(BIN)/python -m deepavfusion.training.experiments.ablations

gallery: env  ## write the gallery of the documentation, and the film strip of README, from the runs of README's commands
	$(BIN)/python -m deepavfusion.training.experiments.gallery --strip docs/film_strip.webp

test: env  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

test-lowest: $(LOWEST)/installed  ## run the tests with the lowest versions allowed by setup.cfg, in .venv-lowest
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python $(PYTEST)

test-newest:  ## run the tests with the newest versions allowed by setup.cfg, in .venv-newest
	$(CHECK_PYTHON)
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable '.[dev]'
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python $(PYTEST)

# Every `name>=version` of setup.cfg as `name==version`: pip refuses lower bounds that contradict each other.
$(LOWEST)/installed: setup.cfg
	$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(LOWEST)
	sed -n 's/^ *\([A-Za-z0-9_-]*\)>=\([0-9.]*\).*/\1==\2/p' setup.cfg > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LOWEST)/constraints.txt --editable '.[dev]'
	touch $@

test-slow: env  ## run the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow

test-ecosystem: env  ## run the tests with packages of others, which the extra ecosystem adds to .venv (gigabytes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,ecosystem]'
	test -n "$$TRANSFORMERS_SOURCE" || test -d $(SUITE)/tests || { rm -rf $(SUITE) && mkdir -p $(SUITE) && $(DOWNLOAD_SUITE); }
	OMP_NUM_THREADS=1 TRANSFORMERS_SOURCE="$${TRANSFORMERS_SOURCE:-$(SUITE)}" $(BIN)/python -m pytest -m ecosystem

test-install: env  ## test the commands in fresh environments with and without extras (downloads gigabytes)
	$(BIN)/python -m pytest -m network

# DEEPAVFUSION_RUNS names another folder than runs. NAMES="01 04" builds only those whose names begin so.
notebooks: env  ## execute the notebooks, with the models in runs, and keep their outputs
	$(BIN)/python notebooks/build.py $(NAMES)

options: env  ## write the options that --help lists, from the classes that define them
	$(BIN)/python -c "from deepavfusion.training.config.help import write_options; write_options()"

lint: env  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(LINK_SOURCES)
	$(BIN)/ty check

# Not --quiet, which hides warnings from --strict.
docs: env  ## build the documentation site in site/, with the extra docs
	$(BIN)/python -c "import material, mkdocstrings_handlers.python" 2> /dev/null || $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	$(LINK_SOURCES)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: env  ## fix formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: help env quickstart pretraining results labels objectives ablations gallery test test-lowest test-newest test-slow test-ecosystem test-install notebooks options lint docs format
