# make demo   the whole job on generated videos; ends with numbers and a picture to open
# make test   what continuous integration runs
# Both make a virtual environment of their own. On Linux, pip's torch brings gigabytes of CUDA along; without a GPU take
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
DEMO_ARGS ?=
BIN := $(VENV)/bin

.PHONY: install demo test test-full lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	touch $@

demo: install
	$(BIN)/bgaug demo $(DEMO_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not full"

# Three quarters of an hour: also hundreds of kills, thousands of flipped bits, the demo's claims, every real file by both
# decoders, ten minutes of 1080p, a thousand opens.
test-full: lint
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo
