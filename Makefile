# Every target sets up what it needs on a fresh clone: a virtual environment with the pinned set.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FACES ?=
ARCFACE_TORCH ?=

.PHONY: demo test test-arcface lint build clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch torchvision
	$(BIN)/pip install -q -c constraints.txt -e ".[all,bench,dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/sf2 demo $(if $(FACES),--faces $(FACES))

test: lint
	$(BIN)/python -m pytest

# Against the real host: make test-arcface ARCFACE_TORCH=insightface/recognition/arcface_torch
test-arcface: $(VENV)/.installed
	ARCFACE_TORCH="$(abspath $(ARCFACE_TORCH))" $(BIN)/python -m pytest tests/test_arcface_torch.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(VENV)/.installed
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf build dist *.egg-info demo_output
