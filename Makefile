# Every target sets up what it needs on a fresh clone: a virtual environment with the pinned set.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FACES ?=

.PHONY: demo test lint build clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch torchvision
	$(BIN)/pip install -q -c constraints.txt -e ".[all,bench,dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/sf2 demo $(if $(FACES),--faces $(FACES))

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(VENV)/.installed
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf build dist *.egg-info demo_output
