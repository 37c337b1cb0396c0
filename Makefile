# One way to run everything. `make` alone lists the targets.
# Works with GNU Make 3.81 (macOS) and later, with -j too.

# The longest first: with several at a time no processor then waits for the last one.
NOTEBOOKS := rai-grads softmax-hidden-layer rai-demo activation-saturation network-basics rai-mechanism rai-guided-starts rai-optimizers relax-your-own rai-questions-initialisation rai-questions-minibatches rai-questions-generalisation

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
# What `make restyle` draws, and how: FIGURES="rai-grads rai-demo/training" (all without it),
# STYLE=slides or my.mplstyle, WIDTH=5.5 (inches), FORMAT=pdf, png or svg.
FIGURES :=
STYLE :=
WIDTH :=
FORMAT :=
# ENV=active uses the python on PATH (conda, a venv of your own) and makes no .venv.
ENV ?=
# The Python that .venv is made from. Without it, the first of these that is new enough; the lock
# was made with 3.11.
PYTHON :=
PYTHONS := python3.11 python3.12 python3.13 python3

ENV_ORIGIN := $(origin ENV)
# What a person gives is text: make does not expand it, and it reaches a recipe through the
# environment, where the shell does not read it again.
$(foreach name,PROFILE PARAMETERS SWEEPS CLUSTER FIGURES STYLE WIDTH FORMAT ENV PYTHON,$(eval override $(name) := $$(value $(name))))
export PARAMETERS SWEEPS CLUSTER FIGURES STYLE WIDTH FORMAT PYTHON PYTHONS

ifneq ($(PROFILE),full)
ifneq ($(PROFILE),quick)
$(error PROFILE is full or quick, not "$(PROFILE)")
endif
endif
RUN := .venv/bin/python
ENVIRONMENT := .venv/.stamp
ifeq ($(ENV),active)
RUN := python
ENVIRONMENT := active-environment
ifneq ($(PYTHON),)
$(error PYTHON is what .venv is made from, and ENV=active makes none: give one of the two)
endif
else ifeq ($(ENV_ORIGIN),command line)
$(error ENV is active or not given, not "$(ENV)")
endif

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
# The helper of this checkout, in whatever environment.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PIPELINE := $(RUN) -m rai_utils.publishing.pipeline
# A notebook computes in one thread, and as many run at a time as there are processors.
JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
TOGETHER = $(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))
# Whole files at a time, in the order in which they are collected. The package comes before nbval
# because of what it keeps out.
PYTEST = OMP_NUM_THREADS=1 $(RUN) -m pytest -p rai_utils.publishing \
	-n $(JOBS) --dist loadfile --no-loadscope-reorder
LINT = $(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m ty check

.PHONY: help figures restyle exercises notebooks report docs lab test check arithmetic study bench peers lock clean $(NOTEBOOKS) active-environment always
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo "  make NOTEBOOK     run one of: $(NOTEBOOKS)"
	@echo
	@echo "  PROFILE=quick     a small run of the notebooks, kept in build/quick/"
	@echo '  PARAMETERS="a=1"  other values for one notebook, kept in build/custom/'
	@echo "  ENV=active        use the python on PATH and make no .venv"
	@echo "  PYTHON=python3.12 make .venv from this Python"

# --- notebooks --------------------------------------------------------------------------------
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

# What a run is made from: `notebook|file` words, the modules that it imports and the data that it
# reads. Listed where a goal is a run, by whatever Python is there; if none can, all there is.
ifneq ($(filter build/% $(NOTEBOOKS),$(MAKECMDGOALS)),)
LISTED := $(shell for python in $(RUN) $(PYTHONS); do \
	PYTHONPATH= "$$python" rai_utils/publishing/sources.py 2>/dev/null && break; done; true)
endif
ALL := $(wildcard $(patsubst %,rai_utils/%,*.py *.pyi */*.py */*/*.py) figures/bench/metrics.json figures/study/*.json)
# $(call run_of,profile,notebook): a published set that is gone is made again.
define run_of
build/$(1)/$(2).ipynb: notebooks/$(2).ipynb $(wildcard notebooks/profiles/$(1)/$(2).yaml) requirements.txt \
		$(or $(patsubst $(2)|%,%,$(filter $(2)|%,$(LISTED))),$(ALL)) \
		$(if $(filter quick,$(1))$(wildcard figures/$(2)/metrics.json),,always) | $(ENVIRONMENT)
	@$(PIPELINE) execute $(2) --profile $(1) --newer='$$?'
endef
$(foreach profile,full quick,$(foreach notebook,$(NOTEBOOKS),$(eval $(call run_of,$(profile),$(notebook)))))

restyle: $(ENVIRONMENT) ## build/restyled/: figures from published data; STYLE, WIDTH, FORMAT, FIGURES
	@$(RUN) -m rai_utils.publishing.restyle --style "$$STYLE" --width "$$WIDTH" --format "$$FORMAT" $$FIGURES
exercises: $(ENVIRONMENT) ## build/exercises/: the notebooks that have exercises, without solutions
	@$(RUN) -m rai_utils.publishing.exercises
notebooks: $(ENVIRONMENT) ## write the outputs of the full run into the notebooks
	@+$(TOGETHER) $(NOTEBOOKS:%=build/full/%.ipynb)
	@$(PIPELINE) write-back $(NOTEBOOKS)
report: $(ENVIRONMENT) ## build/report/: one HTML page of all that is published, and its PDF
	@$(RUN) -m rai_utils.publishing.report
docs: $(ENVIRONMENT) ## build/docs/: pages of every function, from their docstrings
	@$(RUN) -m rai_utils.publishing.docs
# JupyterLab takes the sliders' scripts out of a notebook until it is trusted.
lab: $(ENVIRONMENT) ## open the notebooks in JupyterLab
	@$(RUN) -m jupyter trust notebooks/*.ipynb >/dev/null
	$(RUN) -m jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

# --- tests and measurements -------------------------------------------------------------------
test: $(ENVIRONMENT) ## lint, types, unit tests, every notebook run again, its numbers compared
	@echo "== lint and types"
	@$(LINT)
	@echo "== unit tests and the state of the repository"
	@$(PYTEST) tests --ignore=tests/test_published.py
	@echo "== the fast ones under two other arithmetics"
	@$(RUN) -m rai_utils.publishing.arithmetic tests --settings oldest "four threads"
	@echo "== every notebook run again, outputs and published numbers compared (many minutes)"
	@rm -rf build/scratch
	@$(PYTEST) --nbval --nbval-current-env $(NOTEBOOKS:%=notebooks/%.ipynb)
	@$(RUN) -m pytest tests/test_published.py

check: $(ENVIRONMENT) ## lint, types and the fast unit tests, two minutes
	@$(LINT)
	@$(PYTEST) tests -m "not slow" --ignore=tests/test_published.py
arithmetic: $(ENVIRONMENT) ## does any test, verdict or number hang on rounding? (an hour)
	@$(RUN) -m rai_utils.publishing.arithmetic
study: $(ENVIRONMENT) ## run the long sweeps that some notebooks read (about 8 hours)
	@$(RUN) -m rai_utils.experiments.study $$SWEEPS $${CLUSTER:+--cluster "$$CLUSTER"}
bench: $(ENVIRONMENT) ## time a step, and publish figures/bench/
	@$(RUN) -m rai_utils.experiments.bench
peers: $(ENVIRONMENT) build/peers/.stamp ## time other packages on the same step
	@$(RUN) -m rai_utils.experiments.peers
# jpc is in no package index: who wants its rows adds it to this environment as its page says.
build/peers/.stamp:
	@$(RUN) -m venv --clear build/peers
	@build/peers/bin/python -m pip install -q jax==0.4.38 jaxlib==0.4.38 equinox==0.11.12 \
		optax==0.2.5 diffrax==0.7.2 pcx==0.6.3
	@touch $@

# --- environment ------------------------------------------------------------------------------
# A Python that is named is looked at each time: .venv is made anew if it is from another one.
.venv/.stamp: requirements.txt pyproject.toml $(if $(PYTHON),always)
	@bash rai_utils/publishing/environment.sh venv
active-environment:
	@bash rai_utils/publishing/environment.sh active
lock: ## make requirements.txt anew from the newest packages that pyproject.toml allows
	@bash rai_utils/publishing/environment.sh lock
clean: ## remove build/; figures/ and .venv stay
	rm -rf build
