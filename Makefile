# Two commands do everything: `make book` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PROFILE ?= demo
PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(abspath $(VENV))/bin
READY   := $(VENV)/.ready

CHAPTERS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
SOURCES  := $(shell find fer_utils book -type f -not -path '*/__pycache__/*') _config.yml _toc.yml
OUT      := build/$(PROFILE)
FACESET  := $(or $(FER_BUILD),build)/$(PROFILE)/faceset/manifest.json
RUN      := $(addprefix $(OUT)/site/,$(CHAPTERS))
HTML     := $(OUT)/html/index.html

# Chapters run two at a time, with half of the cores each.
JOBS    := 2
THREADS := $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) + 1) / $(JOBS) )))
# A cell of the demo that hangs fails; training on real data may take as long as it takes.
LIMIT   := $(if $(filter demo,$(PROFILE)),--execution-timeout 3600)

export MPLBACKEND := agg
# Notes on newer releases and frozen modules say nothing about the book.
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help book test lint unit chapters-test pages-test notebooks links scores serve clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[book,test]'
	touch $@

book: $(READY)  ## run the chapters (PROFILE=demo or full) and build the HTML
	@$(MAKE) --no-print-directory --jobs=$(JOBS) $(HTML)
	@echo "The book is in $(HTML)"

# Drawn faces follow the code that draws and merges them. Real ones are merged here only if nobody has yet: they
# may have been merged with options of their own, and runs belong to the set that they were trained on.
ifeq ($(PROFILE),demo)
$(FACESET): $(READY) $(shell find fer_utils/datasets fer_utils/faces.py -name '*.py')
	$(BIN)/fer demo --anew
else
$(FACESET): | $(READY)
	$(BIN)/fer merge
endif

# Executed copies: running the book never touches the notebooks of the checkout. A folder for IPython of its
# own keeps two kernels from waiting for one history, and the user's start-up files out of the book.
$(OUT)/site/notebooks/%.ipynb: notebooks/%.ipynb $(FACESET) $(SOURCES)
	@mkdir -p $(@D) $(OUT)/ipython/$*
	IPYTHONDIR=$(abspath $(OUT))/ipython/$* OMP_NUM_THREADS=$(THREADS) $(BIN)/papermill $< $@ --parameters PROFILE $(PROFILE) --kernel python3 --cwd notebooks --no-progress-bar $(LIMIT)

$(HTML): $(RUN)
	$(BIN)/python book/stage.py site $(OUT)/site
	rm -rf $(OUT)/site/_build
	$(BIN)/jupyter-book build $(OUT)/site --builder html -nW --keep-going --quiet
	test -s $(OUT)/site/_build/html/index.html
	$(BIN)/python book/stage.py pages $(OUT)/site/_build/html
	rm -rf $(OUT)/html
	mv $(OUT)/site/_build/html $(OUT)/html

test: lint unit chapters-test pages-test  ## everything that a change must pass

lint: $(READY)  ## style of code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# One thread a worker: two workers with two threads each on two cores only wait for each other.
unit: $(READY)  ## unit tests
	OMP_NUM_THREADS=1 $(BIN)/pytest tests -m 'not book' -n 2 --dist worksteal -q

# nbval compares the copies that papermill ran for the pages, so that no chapter runs twice: see
# notebooks/conftest.py.
chapters-test: $(READY)  ## run the chapters on demo faces if need be and compare their checked outputs
	$(MAKE) --no-print-directory --jobs=$(JOBS) PROFILE=demo $(addprefix build/demo/site/,$(CHAPTERS))
	$(BIN)/pytest notebooks -q -p no:cacheprovider

pages-test: chapters-test  ## build the demo book if need be and check its pages
	$(MAKE) book PROFILE=demo
	$(BIN)/pytest tests/book/test_book.py -q

notebooks: $(FACESET)  ## authors: run the chapters on demo faces and store the outputs
	printf '%s\n' $(CHAPTERS) | OMP_NUM_THREADS=$(THREADS) xargs -P $(JOBS) -n 1 $(BIN)/jupyter nbconvert \
	  --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False
	$(BIN)/python book/stage.py tidy

links: $(READY)  ## authors: write the repository of _config.yml into badges and Colab cells
	$(BIN)/python book/stage.py links

scores: $(READY)  ## authors: write the scores of book/results into the README
	$(BIN)/python book/stage.py scores

serve: book  ## look at the built book at http://localhost:8000
	$(BIN)/python -m http.server 8000 --bind localhost --directory $(OUT)/html

clean:  ## remove what can be made again, but neither the environment nor runs on real data
	rm -rf build/demo
