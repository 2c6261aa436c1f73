# Two commands do everything on a fresh machine: `make book` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PROFILE ?= demo
PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
PACKAGES := .[train,video,book,test]

CHAPTERS := $(sort $(wildcard notebooks/*.ipynb))
LIBRARY  := $(shell find fer_utils book/reading_faces -name '*.py' -o -name '*.safetensors' -o -name '*.onnx')
RESULTS  := $(shell find book/results book/anchors.csv -type f)
PAGES    := $(shell find book -maxdepth 1 -type f) $(shell find book/static book/images -type f) _config.yml _toc.yml
TRY      := $(shell find book/try -type f) $(wildcard fer_utils/weights_data/*.onnx)
# What the page "Try it" runs on, from npm.
RUNTIME  := build/onnxruntime-web.tgz
$(if $(word 2,$(VENV)),$(error VENV cannot be a path with blanks))
OUT      := build/$(PROFILE)
LOG      := $(OUT)/log
# Folders of other people's naming may hold blanks and brackets, which make reads as its own.
blank    := $() $()
FACESET  := $(subst ],\],$(subst [,\[,$(subst $(blank),\ ,$(or $(FER_BUILD),build)/$(PROFILE)/faceset/manifest.json)))
RUN      := $(addprefix $(OUT)/run/,$(CHAPTERS))
HTML     := $(OUT)/html/index.html

# Chapters run two at a time, with half of the cores each.
JOBS    := 2
THREADS := $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) + 1) / $(JOBS) )))
# A cell of the demo that hangs fails; training on real data may take as long as it takes.
LIMIT   := $(if $(filter demo,$(PROFILE)),--execution-timeout 1800)

export MPLBACKEND := agg
# Notes on newer releases and frozen modules say nothing about the book.
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# tqdm's widgets are not installed, and nobody misses them.
export PYTHONWARNINGS := ignore:IProgress not found

# What a tool prints goes to a log; a failure shows its end and names it. $(call logged,LOG,COMMAND)
define logged
mkdir -p $(dir $(1)); { $(2); } > $(1) 2>&1 || { tail -n 40 $(1); echo "failed: the whole log is in $(1)"; exit 1; }
endef

# $(call alone,FOLDER) waits while another make works there, and goes on when that has ended or was killed.
define alone
mkdir -p $(1); exec 9> $(1)/lock; "$(PYTHON)" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2> /dev/null \
  || { echo "another make works in $(1): waiting for it"; "$(PYTHON)" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'; }
endef

.PHONY: help book test lint unit chapters-test pages-test notebooks links scores study bench audit wheel serve clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@$(call alone,build/setup); test $@ -nt $< && exit; \
	echo "setting up $(VENV): some minutes, about 6 GB"; "$(PYTHON)" -m venv $(VENV); \
	$(call logged,build/log/setup.log,$(BIN)/python -m pip install --quiet --editable '$(PACKAGES)'); touch $@

book: $(READY)  ## run the chapters (PROFILE=demo or full) and build the HTML
	@$(call alone,$(OUT)); $(MAKE) --jobs=$(JOBS) $(HTML)
	@echo "the book is in $(HTML)"

# Drawn faces follow the code that draws and merges them. Real ones are merged here only if nobody has yet: they
# may have been merged with options of their own, and runs belong to the set that they were trained on.
ifeq ($(PROFILE),demo)
$(FACESET): $(READY) $(shell find fer_utils/datasets fer_utils/demo fer_utils/faces.py fer_utils/detector.py -name '*.py')
	@$(BIN)/fer demo --again
else
$(FACESET): | $(READY)
	@$(BIN)/fer merge
endif

# Executed copies: running the book never touches the notebooks of the checkout, and a copy appears when it is whole. A folder for IPython of its own keeps
# two kernels from waiting for one history, and the user's start-up files out of the book.
$(OUT)/run/notebooks/%.ipynb: notebooks/%.ipynb $(FACESET) $(LIBRARY) $(RESULTS)
	@mkdir -p $(@D) $(OUT)/ipython/$*
	@start=$$SECONDS; export IPYTHONDIR="$$PWD/$(OUT)/ipython/$*" OMP_NUM_THREADS=$(THREADS); \
	$(call logged,$(LOG)/$*.log,$(BIN)/papermill $< $(OUT)/ipython/$*/run.ipynb --parameters PROFILE $(PROFILE) --kernel python3 --cwd notebooks --no-progress-bar $(LIMIT)); \
	mv $(OUT)/ipython/$*/run.ipynb $@; \
	echo "chapter $*: $$((SECONDS - start)) s"

# Without a network, the file stays missing: the page says so, and the next `make book` tries again.
$(RUNTIME): book/try/build.py | $(READY)
	@$(BIN)/python $< fetch $@

$(HTML): $(RUN) $(PAGES) $(TRY) $(RUNTIME)
	@rm -rf $(OUT)/site
	@$(BIN)/python book/stage.py site $(OUT)/run $(OUT)/site
	@$(BIN)/python book/try/build.py page $(RUNTIME) $(OUT)/site/book/extra/try
	@$(call logged,$(LOG)/pages.log,$(BIN)/jupyter-book build $(OUT)/site --builder html -nW --keep-going --quiet && test -s $(OUT)/site/_build/html/index.html)
	@rm -rf $(OUT)/html && mv $(OUT)/site/_build/html $(OUT)/html

test: lint unit chapters-test pages-test  ## everything that a change must pass

lint: $(READY)  ## style of code and notebooks, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=.:book $(BIN)/lint-imports

unit: $(READY)  ## unit tests
	$(BIN)/pytest tests -m 'not book' -p no:nbval -n 2 --dist worksteal -q

# nbval compares the copies that papermill ran for the pages, so that no chapter runs twice: see
# notebooks/conftest.py.
chapters-test: $(READY)  ## run the chapters on demo faces if need be and compare their checked outputs
	@$(call alone,build/demo); $(MAKE) --jobs=$(JOBS) PROFILE=demo $(addprefix build/demo/run/,$(CHAPTERS))
	$(BIN)/pytest notebooks -q -p no:cacheprovider

pages-test: chapters-test  ## build the demo book if need be and check its pages
	@$(MAKE) book PROFILE=demo
	$(BIN)/pytest tests -m book -q

notebooks: $(RUN)  ## authors: run the chapters on demo faces and store the outputs
	$(BIN)/python book/stage.py store $(OUT)/run

links: $(READY)  ## authors: write the repository of _config.yml into badges and Colab cells
	$(BIN)/python book/stage.py links

scores: $(READY)  ## authors: write the scores of book/results into README and model cards
	$(BIN)/python book/stage.py scores

study: $(READY)  ## list the experiments behind the real figures: what each writes, and how long it takes
	@$(BIN)/python -m reading_faces.study

bench: $(READY)  ## time, memory and accuracy of prediction beside other packages, which are installed below build/peers
	@PYTHONPATH=.:book $(BIN)/python -m reading_faces.study.bench

audit: $(READY)  ## licences, bill of materials and known weaknesses of the environment's packages, in build/audit
	@"$(PYTHON)" -m venv build/audit/tools
	@build/audit/tools/bin/python -m pip install --quiet pip-licenses cyclonedx-bom pip-audit
	@build/audit/tools/bin/python -m piplicenses --python $(BIN)/python --format markdown > build/audit/licences.md
	@build/audit/tools/bin/python -m cyclonedx_py environment $(BIN)/python --output-file build/audit/bom.json
	PIPAPI_PYTHON_LOCATION="$$PWD/$(BIN)/python" build/audit/tools/bin/python -m pip_audit --skip-editable

wheel: $(READY)  ## build the wheel into dist/
	@$(call logged,build/log/wheel.log,$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .)
	@ls dist/*.whl

serve: book  ## look at the built book at http://localhost:8000
	$(BIN)/python -m http.server 8000 --bind localhost --directory $(OUT)/html

clean:  ## remove what can be made again, but neither the environment nor runs on real data
	rm -rf build/demo
