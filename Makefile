# Every target sets up what it needs: a virtual environment in .venv, made once for each state of pyproject.toml.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup browser demo study study-small bench bench-quick test test-all fuzz lint format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) browser  ## make .venv with everything in it

$(READY): pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(VENV)/bin/uv pip install --quiet --python $(RUN) --editable ".[dev]"
	touch $@

browser:  ## Chromium, for the tests of a report's page: installed where it is missing and apt-get may
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium chromium-driver fonts-dejavu-core >/dev/null || echo "no Chromium: the browser tests will be skipped"; \
	else echo "no Chromium, and no way to install it: the browser tests will be skipped"; fi

demo: $(READY)  ## train, evaluate and draw on the embedded data set: about 5 minutes on 2 cores
	$(RUN) -m aggmask.train experiment=demo

STUDY ?=
study: $(READY)  ## does aggregation help? hours on 2 cores; STUDY="--data shapes_hard" or "--sweep study_solov2"
	$(RUN) -m benchmarks.study $(STUDY)

study-small: $(READY)  ## its main comparison with few steps and two seeds: 18 minutes on 2 cores
	$(RUN) -m benchmarks.study --sweep study_main --steps 240 --seeds 0,1 --lr 0.002 $(STUDY)

# Files in the order of tests/conftest.py.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
test: $(READY) browser  ## all but the slow tests, two at a time
	$(RUN) -m pytest $(TWO) -m "not slow"

test-all: $(READY) browser  ## the slow tests too
	$(RUN) -m pytest $(TWO)

FUZZ_SECONDS ?= 600
fuzz: $(READY)  ## random annotation files and outlines, other ones each time: ten minutes, or FUZZ_SECONDS=60
	end=$$(($$(date +%s) + $(FUZZ_SECONDS))); while [ $$(date +%s) -lt $$end ]; do \
	    HYPOTHESIS_PROFILE=fuzz $(RUN) -m pytest --quiet --timeout=0 tests/nasty/test_fuzz.py || exit 1; done

PARTS ?=
bench: $(READY)  ## what everything costs, against baselines: 82 minutes on 2 cores; piece by piece: PARTS="data growth"
	$(RUN) -m benchmarks $(PARTS)

bench-quick: $(READY)  ## the same at small sizes: 17 minutes on 2 cores
	$(RUN) -m benchmarks --quick $(PARTS)

lint: $(READY)  ## what the code must look like
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(READY)  ## make it look so
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:  ## remove .venv and caches; runs and data sets stay
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
