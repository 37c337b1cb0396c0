# One way to run everything. `make` alone lists the targets.
# Works with GNU Make 3.81 (macOS) and later, with -j too.

# The longest first: with several at a time no processor then waits for the last one.
NOTEBOOKS := rai-grads softmax-hidden-layer rai-demo activation-saturation network-basics rai-questions-initialisation rai-questions-minibatches rai-questions-generalisation

# full: the defaults in the notebooks, published in figures/.
# quick: smaller runs, set in notebooks/profiles/quick/, kept in build/quick/.
PROFILE := full

# Other values for the parameters of one notebook: PARAMETERS="depth=50 rates=[0.1, 0.01]".
PARAMETERS :=

# What `make study` runs, and how: SWEEPS="handover residuals", CLUSTER=local or a Dask scheduler.
# SWEEPS="handover --adopt" says that a change of the code changed none of its numbers, "--replace"
# publishes where published settings are left out.
SWEEPS :=
CLUSTER :=

# ENV=active uses the python on PATH (conda, a venv of your own) and makes no .venv.
ENV ?=

# The Python that .venv is made from. Without it, the first of these that is new enough; the lock
# was made with 3.11.
PYTHON :=
PYTHONS := python3.11 python3.12 python3.13 python3

ENV_ORIGIN := $(origin ENV)
# What a person gives is text: make does not expand it, and it reaches a recipe through the
# environment, where the shell does not read it again.
GIVEN := PROFILE PARAMETERS SWEEPS CLUSTER ENV PYTHON
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export PARAMETERS SWEEPS CLUSTER PYTHON

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:

ifneq ($(PROFILE),full)
ifneq ($(PROFILE),quick)
$(error PROFILE is full or quick, not "$(PROFILE)")
endif
endif
ifeq ($(ENV),active)
ifneq ($(PYTHON),)
$(error PYTHON is what .venv is made from, and ENV=active makes none: give one of the two)
endif
RUN := python
ENVIRONMENT := active-environment
else
ifeq ($(ENV_ORIGIN),command line)
$(error ENV is active or not given, not "$(ENV)")
endif
RUN := .venv/bin/python
ENVIRONMENT := .venv/.stamp
endif

# The helper of this checkout, in whatever environment.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PIPELINE := $(RUN) -m rai_utils.publishing.pipeline
# What an executed notebook is made from: `notebook|file` words, the modules that it imports and
# the data that it reads. Listed where a goal may run a notebook, by whatever Python is there; if
# none can, by all modules.
ifneq ($(filter figures notebooks build/% $(NOTEBOOKS),$(MAKECMDGOALS)),)
LISTED := $(shell for python in $(RUN) $(PYTHONS); do \
	PYTHONPATH= "$$python" rai_utils/publishing/sources.py 2>/dev/null && break; done; true)
endif
# $(call sources,notebook)
sources = $(or $(patsubst $(1)|%,%,$(filter $(1)|%,$(LISTED))),\
	$(wildcard $(patsubst %,rai_utils/%,*.py *.pyi */*.py */*/*.py) figures/bench/metrics.json figures/study/*.json))

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo "  make NOTEBOOK     run one of: $(NOTEBOOKS)"
	@echo
	@echo "  PROFILE=quick     a small run of the notebooks, kept in build/quick/"
	@echo '  PARAMETERS="a=1"  other values for one notebook, kept in build/custom/'
	@echo "  ENV=active        use the python on PATH and make no .venv"
	@echo "  PYTHON=python3.12 make .venv from this Python"

# --- notebooks --------------------------------------------------------------------------------

# A notebook computes in one thread, and as many run at a time as there are processors.
JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PYTEST = OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
TOGETHER = $(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: figures $(NOTEBOOKS) always
figures: $(ENVIRONMENT) ## run the notebooks and publish figures/ (PROFILE=quick: build/quick/)
	@+$(TOGETHER) $(NOTEBOOKS)

ifeq ($(strip $(PARAMETERS)),)
$(NOTEBOOKS): %: build/$(PROFILE)/%.ipynb
	@echo "$*  $(PROFILE)  up to date in $(if $(filter quick,$(PROFILE)),build/quick/)figures/$*"
else
ifneq ($(words $(filter $(NOTEBOOKS),$(MAKECMDGOALS)))-$(words $(MAKECMDGOALS)),1-1)
$(error PARAMETERS goes with one notebook: make rai-demo PARAMETERS="$(PARAMETERS)")
endif
$(NOTEBOOKS): %: notebooks/%.ipynb | $(ENVIRONMENT)
	@$(PIPELINE) execute $* --profile $(PROFILE) --parameters="$$PARAMETERS"
endif

$(NOTEBOOKS:%=build/full/%.ipynb): build/full/%.ipynb: notebooks/%.ipynb requirements.txt \
		| $(ENVIRONMENT)
	@$(PIPELINE) execute $* --profile full --newer='$?'

$(NOTEBOOKS:%=build/quick/%.ipynb): build/quick/%.ipynb: notebooks/%.ipynb \
		notebooks/profiles/quick/%.yaml requirements.txt | $(ENVIRONMENT)
	@$(PIPELINE) execute $* --profile quick --newer='$?'

$(foreach notebook,$(NOTEBOOKS),$(eval \
	build/full/$(notebook).ipynb build/quick/$(notebook).ipynb: $(call sources,$(notebook))))

# A published set that is gone is made again.
$(foreach notebook,$(NOTEBOOKS),$(if $(wildcard figures/$(notebook)/metrics.json),,\
	$(eval build/full/$(notebook).ipynb: always)))

.PHONY: notebooks
notebooks: $(ENVIRONMENT) ## write the outputs of the full run into the notebooks
	@+$(TOGETHER) $(NOTEBOOKS:%=build/full/%.ipynb)
	@$(PIPELINE) write-back $(NOTEBOOKS)

.PHONY: report
report: $(ENVIRONMENT) ## build/report/: one HTML page of all that is published, and its PDF
	@$(RUN) -m rai_utils.publishing.report

.PHONY: lab
lab: $(ENVIRONMENT) ## open the notebooks in JupyterLab
	$(RUN) -m jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

# --- tests ------------------------------------------------------------------------------------

.PHONY: test
test: $(ENVIRONMENT) ## lint, unit tests, every notebook run again, its numbers compared
	@echo "== lint"
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@echo "== unit tests and the state of the repository"
	@$(PYTEST) tests --ignore=tests/test_published.py
	@echo "== the fast ones under two other arithmetics"
	@$(RUN) -m rai_utils.publishing.arithmetic tests --settings oldest "four threads"
	@echo "== every notebook run again, outputs and published numbers compared (many minutes)"
	@rm -rf build/scratch
	@$(PYTEST) --nbval --nbval-current-env $(NOTEBOOKS:%=notebooks/%.ipynb)
	@$(RUN) -m pytest tests/test_published.py

.PHONY: arithmetic
arithmetic: $(ENVIRONMENT) ## does any test, verdict or number hang on rounding? (two hours)
	@$(RUN) -m rai_utils.publishing.arithmetic

.PHONY: check
check: $(ENVIRONMENT) ## lint and the fast unit tests, under a minute
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(PYTEST) tests -m "not slow" --ignore=tests/test_published.py

.PHONY: study
study: $(ENVIRONMENT) ## run the long sweeps behind the rai-questions notebooks (about an hour)
	@$(RUN) -m rai_utils.experiments.study $$SWEEPS $${CLUSTER:+--cluster "$$CLUSTER"}

.PHONY: bench
bench: $(ENVIRONMENT) ## time a step, and publish figures/bench/
	@$(RUN) -m rai_utils.experiments.bench

# --- environment ------------------------------------------------------------------------------

.PHONY: active-environment
active-environment:
	@python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ENV=active needs Python 3.11 or later as python on PATH." >&2; exit 1; }
	@python -c 'import torch, papermill, nbval, jupyterlab, ruff, pypandoc' 2>/dev/null || { \
		echo "ENV=active needs what requirements.txt lists in the active environment:" \
			"python -m pip install -r requirements.txt" >&2; exit 1; }

define FIND_PYTHON
if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; else set -- $(PYTHONS); fi; \
found=; \
for candidate; do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		found=$$candidate; break; \
	fi; \
done; \
if [ -z "$$found" ]; then \
	echo "Python 3.11 or later is needed, and none was found among: $$*." \
		"Install it, or name it with PYTHON=/path/to/python." >&2; exit 1; \
fi; \
if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	echo "$$found cannot make an environment: its venv module is missing" \
		"(on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; \
fi
endef

# $(call INSTALL,python of the environment,what to install,log)
define INSTALL
if ! $(1) -m pip install --progress-bar off $(2) >$(3) 2>&1; then \
	tail -n 5 $(3) >&2; \
	if grep -q -E 'from versions: none|[Cc]onnection|Name or service|name resolution|timed out|ProxyError' $(3); then \
		echo "The packages could not be downloaded: is there a network, and is pip's index" \
			"reachable? All of pip's answer is in $(3)." >&2; \
	else \
		echo "The packages could not be installed. All of pip's answer is in $(3)." >&2; \
	fi; \
	exit 1; \
fi
endef

# A Python that is named is looked at each time: .venv is made anew if it is from another one.
ifneq ($(PYTHON),)
.venv/.stamp: always
endif
ORIGIN := import sys; print(sys.base_prefix, sys.version)
.venv/.stamp: requirements.txt pyproject.toml
	@remake=; \
	if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		remake=yes; $(FIND_PYTHON); \
	elif [ -n "$$PYTHON" ]; then \
		$(FIND_PYTHON); \
		[ "$$("$$found" -c '$(ORIGIN)')" = "$$(.venv/bin/python -c '$(ORIGIN)')" ] || remake=yes; \
	fi; \
	if [ -z "$$remake" ] && [ $@ -nt requirements.txt ] && [ $@ -nt pyproject.toml ]; then exit; fi; \
	rm -f $@; \
	if [ -n "$$remake" ]; then \
		echo "environment  making .venv with $$found"; \
		"$$found" -m venv --clear .venv; \
	fi; \
	echo "environment  installing the packages of requirements.txt (minutes on first use)"; \
	$(call INSTALL,.venv/bin/python,-r requirements.txt,.venv/install.log); \
	$(call INSTALL,.venv/bin/python,--no-deps --editable .,.venv/install.log); \
	touch $@

.PHONY: lock
lock: ## make requirements.txt anew from the newest packages that pyproject.toml allows
	@$(FIND_PYTHON); rm -rf build/lock; mkdir -p build; "$$found" -m venv build/lock
	@$(call INSTALL,build/lock/bin/python,'.[study]',build/lock/install.log)
	@{ \
		echo "# Exact versions of everything that is installed, made by \`make lock\`: a new"; \
		echo "# environment with what pyproject.toml asks for, frozen."; \
		echo "# Build tags (+cpu) and the CUDA packages of one platform are left out, so that"; \
		echo "# each platform's own build of torch fits. Install it with dependencies."; \
		build/lock/bin/python -m pip freeze --exclude rai-study \
			| sed 's/+.*//' | grep -v -E '^(nvidia|cuda|triton)'; \
	} >build/requirements.txt
	@mv build/requirements.txt requirements.txt
	@rm -rf build/lock
	@echo "environment  wrote requirements.txt"

.PHONY: clean
clean: ## remove build/; figures/ and .venv stay
	rm -rf build
