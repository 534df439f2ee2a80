# Every target sets up what it needs on a fresh clone: a virtual environment with the pinned set.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FACES ?=
ARCFACE_TORCH ?=
HOSTS ?=
STACK ?=
TESTS ?=
QUICK ?=
WORKERS ?= 2
PAIRS ?=

.PHONY: demo test test-arcface stacks lint docs bench bench-gpu accuracy build clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[all,hosts,bench,docs,dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/sf2 demo $(if $(FACES),--faces "$(FACES)")

# By file, whose tests share what they set up.
test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

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

# On a machine with an NVIDIA GPU: the tests that run there, then figures, then the page. Installs
# nothing and needs no network: PYTHON has torch, Triton, numpy, pytest and matplotlib. Without .git,
# COMMIT=... says what is measured. What fails takes nothing else away, and counts at the end.
DEVICE ?= cuda
COMMIT ?=
MINUTES ?= 6
MAX_CLASSES ?=
GPU_TESTS ?= tests/core/test_cuda.py tests/core/test_engine.py tests/core/test_triton.py tests/core/test_fused_sgd.py
TESTERS := $(shell $(PYTHON) -c "import xdist; print('-n 8')" 2> /dev/null)

bench-gpu: export PYTHONPATH = $(CURDIR)
bench-gpu: export PYTHONUNBUFFERED = 1
bench-gpu:
	@status=0; \
	timeout 200 $(PYTHON) -m pytest -p no:cacheprovider $(TESTERS) $(GPU_TESTS) || status=1; \
	$(PYTHON) benchmarks/suite.py --device $(DEVICE) --rounds 10 --minutes $(MINUTES) \
		$(if $(HOSTS),--hosts "$(abspath $(HOSTS))") $(if $(COMMIT),--commit $(COMMIT)) \
		$(if $(MAX_CLASSES),--max-classes $(MAX_CLASSES)) --out docs/benchmarks || status=1; \
	$(PYTHON) benchmarks/report.py || status=1; \
	exit $$status

# The study of docs/accuracy.md, which goes on where it was stopped. FACES and PAIRS (NAME=DIR ...)
# are folders with pairs, faces are drawn where FACES is left out; MANY people are drawn to sample
# negatives of; QUICK=1 asks the first questions alone.
ACCURACY_RUNS ?= accuracy_runs
MANY ?= 20000
ACCURACY = OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.accuracy \
	$(if $(ARCFACE_TORCH),--arcface-torch "$(abspath $(ARCFACE_TORCH))")

accuracy: $(VENV)/.installed
	$(ACCURACY) --out "$(ACCURACY_RUNS)" $(if $(FACES),--faces "$(abspath $(FACES))") \
		$(if $(QUICK),--quick) $(foreach test,$(PAIRS),--test $(test))
	$(if $(QUICK),,$(ACCURACY) --out "$(ACCURACY_RUNS)/many" --people $(MANY) --epochs 3 --seeds 3)
	$(BIN)/python -m benchmarks.accuracy_report --out "$(ACCURACY_RUNS)/page" \
		--runs "$(ACCURACY_RUNS)" $(if $(QUICK),,"$(ACCURACY_RUNS)/many")

build: $(VENV)/.installed
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf build dist *.egg-info demo_output site
