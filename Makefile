# Every target sets up what it needs on a fresh clone: a virtual environment with the pinned set.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FACES ?=
ARCFACE_TORCH ?=
HOSTS ?=
STACK ?=
TESTS ?=

.PHONY: demo test test-arcface stacks lint docs bench bench-gpu build clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[all,hosts,bench,docs,dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/sf2 demo $(if $(FACES),--faces "$(FACES)")

test: lint
	$(BIN)/python -m pytest

# Against the real host: make test-arcface ARCFACE_TORCH=insightface/recognition/arcface_torch
test-arcface: $(VENV)/.installed
	ARCFACE_TORCH="$(abspath $(ARCFACE_TORCH))" $(BIN)/python -m pytest tests/integrations/test_arcface_torch.py

# Every environment of noxfile.py in turn, then docs/stacks.md; one: make stacks STACK=torch2.6
stacks: $(VENV)/.installed
	$(BIN)/nox -s $(if $(STACK),"stack($(STACK))",stack) -- $(TESTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/; a link that leads nowhere is an error.
docs: $(VENV)/.installed
	$(BIN)/mkdocs build

# HOSTS is a folder with checkouts of the heads to compare with: opensphere, wespeaker, insightface.
SUITE = $(BIN)/python benchmarks/suite.py --out docs/benchmarks $(if $(HOSTS),--hosts "$(abspath $(HOSTS))")

bench: $(VENV)/.installed
	$(SUITE) --device cpu --rounds 5
	$(BIN)/python benchmarks/report.py

# On a machine with an NVIDIA GPU: the tests that run there, then every figure, then the page.
bench-gpu: $(VENV)/.installed
	$(BIN)/python -c "import torch; print(torch.cuda.get_device_name())"
	$(BIN)/python -m pytest tests/core/test_cuda.py tests/core/test_triton.py tests/core/test_fused_sgd.py
	$(SUITE) --device cuda --rounds 10
	$(BIN)/python benchmarks/report.py

build: $(VENV)/.installed
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf build dist *.egg-info demo_output site
