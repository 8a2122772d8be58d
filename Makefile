# make report   from nothing to report/index.html
# make test     every test that CI runs
# make check    format, lint, types
# make docs     the pages of docs/ as a site in site/, strictly: a broken link is an error
# make help     all targets

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MORE   := .venv-more
LOWEST := .venv-lowest
OLD    := resnet18 convnext_atto mixer_s32_224 vit_tiny_patch16_224 swin_tiny_patch4_window7_224 \
          GPT2 Llama Gemma2 Mixtral T5 Bert Whisper ViT
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: bench bench-compare notebooks studies help report test test-slow check docs format zoo zoo-types depth clean fuzz mutants

help:
	@sed -n 's/^# make/make/p' Makefile

report: $(VENV)/.data
	$(BIN)/unbraid report

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" --deselect examples/

# make test-slow    the rest of the tests, and the notebooks
test-slow: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest examples

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Not --quiet: mkdocs then counts no warnings, and --strict lets broken links pass. The notice is about its own future.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# make format   write the code in the common form
format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# make depth    the table "plain against residual by depth" of the README, three seeds
depth: $(VENV)/.data
	$(BIN)/python benchmarks/depth.py

# make studies  replications of papers: train and measure, rewrite docs/studies; goes on where it was stopped
studies: $(VENV)/.data
	for study in studies/[a-z]*.py; do $(BIN)/python $$study || exit 1; done

# make notebooks  run the notebooks of examples/ anew and keep their outputs
notebooks: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python scripts/notebooks.py

# make zoo      trace the models of timm, transformers and a dozen other libraries; writes docs/zoo.md
zoo: $(VENV)/.dev $(MORE)/.ready $(LOWEST)/.ready
	$(LOWEST)/bin/python scripts/zoo.py --results runs/zoo/lowest.jsonl $(OLD)
	YOLO_CONFIG_DIR=$(MORE) YOLO_VERBOSE=False $(MORE)/bin/python scripts/zoo.py --more
	$(BIN)/python scripts/zoo.py

# make zoo-types  trace every model type of transformers, built small; writes docs/types.md; goes on where it was stopped
zoo-types: $(VENV)/.dev $(MORE)/.ready
	OMP_NUM_THREADS=1 $(MORE)/bin/python scripts/model_types.py --diffusers
	OMP_NUM_THREADS=1 $(BIN)/python scripts/model_types.py

# make bench    all benchmarks, about two hours on a machine that does nothing else
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

# make bench-compare  the results in the working tree beside the last committed ones
bench-compare: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py --compare

# make fuzz     20,000 broken and hostile inputs for each parser and loader; 2,000 random residual networks
fuzz: $(VENV)/.fuzz
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/generated/run.py

# make mutants  change the code that finds, cuts and walks, and see the tests fail: 42 minutes on 2 cores; goes on where it stopped
mutants: $(VENV)/.fuzz
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutate.py

# make clean    remove the environment and what was made
clean:
	rm -rf $(VENV) $(MORE) report runs build dist site

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unbraid needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.data: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[data]'
	@touch $@

$(VENV)/.fuzz: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev,fuzz]'
	@touch $@ $(VENV)/.dev $(VENV)/.data

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.data

# The oldest timm and transformers that pyproject.toml allows, and what else they need as it is now.
$(LOWEST)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[zoo]'
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt) \
		$$($(LOWEST)/bin/python -c "import tomllib; print(*(need.replace('>=', '==') for need in tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['zoo']))")
	@touch $@

# An environment of its own: what the other libraries ask for would replace our torch, so they come without dependencies.
$(MORE)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(MORE)
	$(MORE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[zoo]'
	$(MORE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
		$$($(MORE)/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['zoo-more'])")
	@touch $@
