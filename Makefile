# The tasks of this repository; `make` alone lists them. Needs python3 (3.11 or newer) and make.

VENV := .venv
PY := $(VENV)/bin/python
LOCK := requirements/lock.txt
TORCH := requirements/torch.txt
SPARK := requirements/spark.txt
GGUF := requirements/gguf.txt
DOCS := requirements/docs.txt
PIP := $(PY) -m pip --quiet --quiet --disable-pip-version-check --no-input
PAXML := .venv-paxml
PAXML_PIP := $(PAXML)/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input
DEMO_RECORDINGS := parity_tests/recordings
DEMO_CASE := b_everywhere
DEMO := build/demo/efficientids
CODE := efficientids_flax converters parity_tests tests benchmarks examples example_train.py

# `make PYTHON=/path/to/python3 …` takes that one; else the first of these that will do.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)

# The real PAXml needs Python 3.10: `make references PYTHON310=/path/to/python3.10`; else pyenv's or
# the one in PATH.
PYTHON310 ?=

MOVIES := build/movielens

# Arguments handed through: make test ARGS='-k zarr', make bench ARGS='--gigabytes 1'.
ARGS ?=
BASE ?=

SHELL := /bin/sh
.SHELLFLAGS := -euc
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup torch spark everything test quick lint types imports format docs demo example example-text fuzz bench references lock clean

help: ## List the tasks.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 21

setup: $(VENV)/.ready ## Make .venv from the pinned packages; done once, and again when the pins change.

torch: $(VENV)/.torch ## Add PyTorch and transformers, without which the tests against them are skipped.

spark: $(VENV)/.spark ## Add PySpark and a Java runtime, without which the tests of that engine are skipped.

everything: $(VENV)/.everything ## Add all that tests use: PyTorch, PySpark, and what builds the documentation.

test: setup ## Run the tests, a file at a time on every core. ARGS='-k zarr -x' goes to pytest.
	$(PY) -m pytest -n auto --dist loadfile $(ARGS)

quick: setup ## Lint and test what a change touched, in a minute. BASE=main is all that a branch changed.
	$(PY) -m tests.quick $(if $(BASE),--base $(BASE)) $(ARGS)

lint: setup ## Check style and formatting.
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: setup ## Check the types.
	$(PY) -m pyright --pythonpath $(PY)

imports: setup ## Check that imports point one way.
	$(VENV)/bin/lint-imports

format: setup ## Rewrite the code in the project's format, with the fixes that are safe.
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(VENV)/.docs ## Build the documentation, strictly, to build/site. ARGS=serve shows it while you write.
	PYTHONPATH=docs/extensions $(PY) -m zensical $(or $(ARGS),build --strict --clean)

demo: setup ## Convert the bundled real EfficientIDs checkpoint, and compare it with the real PAXml.
	$(VENV)/bin/efficientids convert $(DEMO_RECORDINGS)/efficientids/$(DEMO_CASE)/checkpoint $(DEMO) --overwrite
	$(PY) examples/load_converted.py $(DEMO)
	$(VENV)/bin/efficientids parity $(DEMO) --against $(DEMO_RECORDINGS)/outputs/$(DEMO_CASE) \
	  --html $(DEMO)-parity.html

example: setup ## Prepare MovieLens 100K, train a recommender on it, and recommend films, in a few minutes.
	$(PY) examples/movielens/fetch.py $(MOVIES)/raw
	$(VENV)/bin/efficientids prepare $(MOVIES)/raw --out $(MOVIES)/data --overwrite
	$(VENV)/bin/efficientids embed --from cooccurrence --data-dir $(MOVIES)/data --overwrite
	$(VENV)/bin/efficientids cluster --method balanced-kmeans --metric cosine --data-dir $(MOVIES)/data \
	  --overwrite
	rm -rf $(MOVIES)/run $(MOVIES)/model
	$(VENV)/bin/efficientids train --config examples/movielens/run.yaml
	$(VENV)/bin/efficientids evaluate --config examples/movielens/run.yaml --split test \
	  --report $(MOVIES)/report
	$(VENV)/bin/efficientids export --config examples/movielens/run.yaml $(MOVIES)/model
	$(VENV)/bin/efficientids recommend --checkpoint $(MOVIES)/model --input-raw-ids "50,181,172" \
	  --exclude-seen --top-k 5

# `make example` makes the data, their vectors and their clusters.
example-text: $(VENV)/.gguf ## After `make example`: a frozen language model in its place, 8 minutes.
	$(PY) examples/movielens/fetch_model.py $(MOVIES)/language-model
	rm -rf $(MOVIES)/text-run $(MOVIES)/text-model
	$(VENV)/bin/efficientids train --config examples/movielens/text.yaml
	$(VENV)/bin/efficientids evaluate --config examples/movielens/text.yaml --split test \
	  --report $(MOVIES)/text-report
	$(VENV)/bin/efficientids export --config examples/movielens/text.yaml $(MOVIES)/text-model
	$(VENV)/bin/efficientids recommend --checkpoint $(MOVIES)/text-model \
	  --input-raw-ids "50,181,172" --exclude-seen --top-k 5

fuzz: setup ## Damage checkpoints for an hour and look at what conversions say. ARGS=60 is a minute.
	$(PY) -m tests.converters.fuzz $(or $(ARGS),3600)

bench: setup ## Measure conversion speed and memory. ARGS='…' goes to benchmarks/convert.py.
	$(PY) benchmarks/convert.py $(ARGS)

references: $(PAXML)/.ready ## Record what the real PAXml computes, to build/references. ARGS='Gqa' is one model.
	TF_CPP_MIN_LOG_LEVEL=3 $(PAXML)/bin/python -W ignore -m parity_tests.record \
	  activations build/references $(ARGS)

lock: ## Pin the newest packages that pyproject.toml allows, into requirements/lock.txt.
	@$(find_python); \
	rm -rf build/lock; "$$python" -m venv build/lock; \
	build/lock/bin/pip install --quiet '.[test,lint]' editables hatchling; \
	{ sed -n '/^#/p' $(LOCK); \
	  build/lock/bin/pip freeze --exclude efficientids-flax --exclude pip --exclude setuptools; \
	} > build/lock.txt; \
	mv build/lock.txt $(LOCK); rm -rf build/lock

clean: ## Remove .venv, .venv-paxml, build/ and every cache.
	rm -rf $(VENV) $(PAXML) build dist .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last, so a set-up that was interrupted is done again from the start.

$(VENV)/.ready: $(VENV)/.locked pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(PIP) check > $(VENV)/check.txt || { cat $(VENV)/check.txt >&2; exit 1; }
	@touch $@

# Compiling all that is installed would take as long again; what is used is compiled on its import.
# pip downloads and unpacks one package after another, so two of them share the list.
$(VENV)/.locked: $(LOCK)
	@$(find_python); \
	echo "Setting up $(VENV) with $$($$python --version) (a minute or two, this once)"; \
	$(make_venv); \
	sed -n 'p;n' $(LOCK) > $(VENV)/half1.txt; sed -n 'n;p' $(LOCK) > $(VENV)/half2.txt; \
	halves=; for half in $(VENV)/half1.txt $(VENV)/half2.txt; do \
	  $(PIP) install --no-compile --no-deps --requirement $$half & halves="$$halves $$!"; \
	done; \
	for half in $$halves; do wait $$half; done
	@touch $@

$(VENV)/.torch: $(TORCH) $(VENV)/.ready
	$(call add,PyTorch,$(TORCH))

$(VENV)/.spark: $(SPARK) $(VENV)/.ready
	$(call add,PySpark,$(SPARK))

$(VENV)/.gguf: $(GGUF) $(VENV)/.torch
	$(call add,GGUF,$(TORCH) $(GGUF))

$(VENV)/.docs: $(DOCS) $(VENV)/.ready
	$(call add,what builds the documentation,$(DOCS))

# The other targets cannot run side by side; this one does their work at once, beside other tasks.
$(VENV)/.everything: $(TORCH) $(SPARK) $(DOCS) $(VENV)/.ready
	$(call add,all that tests and documentation use,$(TORCH) $(SPARK) $(DOCS))
	@touch $(VENV)/.torch $(VENV)/.spark $(VENV)/.docs

# Adds packages: what they are, the files that list them. The pins of $(LOCK) stay as they are.
define add
@echo "Adding $(1) to $(VENV) (half a minute, this once)"
@$(PIP) install --no-compile --constraint $(LOCK) $(addprefix --requirement ,$(2))
@$(PIP) check > $(VENV)/check.txt || { cat $(VENV)/check.txt >&2; exit 1; }
@touch $@
endef

# The second line matters: the resolver takes a jaxlib that jax 0.4.26 refuses.
$(PAXML)/.ready:
	@$(find_python310); \
	echo "Setting up $(PAXML) with $$($$python --version) (about 4 minutes, this once)"; \
	"$$python" -m venv --clear $(PAXML); \
	$(PAXML_PIP) install paxml==1.4.0 praxis==1.4.0; \
	$(PAXML_PIP) install --no-deps jaxlib==0.4.26 'scipy<1.13' 'setuptools<70'
	@touch $@

# Sets $python to a Python 3.10 that can make virtual environments.
define find_python310
python=; \
for name in $(or $(PYTHON310),"$$(pyenv root 2>/dev/null)"/versions/3.10.*/bin/python python3.10); do \
  if "$$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 10))' \
    2>/dev/null; then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then \
  echo "The real PAXml 1.4.0 needs Python 3.10 with venv, and none was found" \
    "$(if $(PYTHON310),at $(PYTHON310),among pyenv's versions and in PATH). Install one (with pyenv:" \
    "pyenv install 3.10) or name it: make references PYTHON310=/path/to/python3.10" >&2; \
  exit 1; \
fi
endef

# Sets $python to an interpreter that is new enough and can put pip into a virtual environment.
define find_python
python=; \
for name in $(CANDIDATES); do \
  if "$$name" -c 'import sys, venv; from importlib.util import find_spec as has; \
sys.exit(sys.version_info < (3, 11) or not (has("pip") or has("ensurepip.__main__")))' 2>/dev/null; \
  then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then \
  echo "No Python 3.11 or newer with venv and pip among: $(CANDIDATES). Install one" \
    "(on Debian: python3 and python3-venv) or name it: make PYTHON=/path/to/python3" >&2; \
  exit 1; \
fi
endef

# Debian's python3 without python3-venv lacks ensurepip; its own pip then installs one.
define make_venv
if "$$python" -c 'import ensurepip.__main__' 2>/dev/null; then \
  "$$python" -m venv --clear $(VENV); \
else \
  "$$python" -m venv --clear --without-pip $(VENV); \
  "$$python" -m pip --quiet --python $(PY) install pip; \
fi
endef
