# Each target sets up what it needs. PYTHON is any Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints/cpu.txt
STAMP := $(VENV)/.installed
# The tests and the quickstart neither need nor use a network.
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

.PHONY: install quickstart test test-all test-gpu check acceptance bench schema gallery rehearse goldens clean

install: $(STAMP)

$(STAMP): setup.py $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e ".[curate,deepspeed,fast,track,dev]"
	touch $(STAMP)

quickstart: install
	$(BIN)/python recipes/quickstart/make_world.py
	$(OFFLINE) $(BIN)/alignment run recipes/quickstart

# Two workers of one thread each: the models are tiny, and threads would only wait for each other. In the order of their names, as
# files with few tests take the longest; compiled modules are kept, so that the processes that tests start find them.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(OFFLINE) $(BIN)/python -m pytest tests --ignore tests/gpu -n 2 --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST) -m "not slow and not acceptance" --durations=15

test-all: install
	$(PYTEST) -m "not acceptance" --durations=30

# On a machine with a GPU; a third of them took four minutes on an H100. Several commands at once, each on a tiny model.
test-gpu: install
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/python -m pytest tests/gpu -n 8 --dist worksteal

check: install
	$(BIN)/ruff check src tests recipes benchmarks
	$(BIN)/ruff format --check src tests recipes benchmarks
	$(OFFLINE) $(BIN)/python -m pytest tests/test_layers.py tests/recipe/test_fresh.py
	$(BIN)/alignment check recipes/*/*.yaml tests/acceptance/*.yaml

# Real data, which is not part of the repository: ALIGNMENT_DATA names its folder.
acceptance: install
	ALIGNMENT_DATA="$${ALIGNMENT_DATA:-$$(cd .. && pwd)/shared/data}" $(OFFLINE) \
	  $(BIN)/python -m pytest tests/acceptance -m acceptance -rs --durations=0

bench: install
	$(OFFLINE) $(BIN)/python -m benchmarks.compare

# Regenerates what is derived from the schema; tests hold both fresh.
schema: install
	$(BIN)/python -m alignment.recipe.docs

# The table of the studies in recipes/; a test holds it fresh.
gallery: install
	$(BIN)/python -m alignment.gallery

# Every recipe of recipes/, shrunken, on two CPU ranks under the launcher config that its study names (about six minutes). Writes
# recipes/rehearsed.json and the table; what failed says why.
rehearse: install
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/python -m alignment.launch.rehearse.gallery

# Moves the golden traces; say why in CHANGELOG.md.
goldens: install
	$(OFFLINE) $(BIN)/python -m tests.goldens.update

clean:
	rm -rf $(VENV) runs recipes/quickstart/data
