# `make demo` and `make test` need git, make, g++ and python3 >= 3.10; the rest is installed into .venv.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST_JOBS ?= 2
PYTEST_ARGS ?=
CUDA_ARCHS ?= 90-real
SMOKE_STEPS ?= 20
# A warning of a compiler newer than ours must not stop a stranger.
WERROR ?= $(if $(CI),ON,OFF)

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup build test demo smoke lint cuda sanitize wheel bench clean

# Found before the environment's own folder leads PATH.
BASE_PYTHON := $(shell command -v $(PYTHON) 2>/dev/null)
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A stamp carries a checksum of what was asked for, so that another TORCH= installs again.
TORCH_KEY := $(shell printf '%s' '$(TORCH) $(TORCH_INDEX)' | cksum | cut -d' ' -f1)
VENV_STAMP := $(VENV)/.stamp-venv
TORCH_STAMP := $(VENV)/.stamp-torch-$(TORCH_KEY)
TOOLS_STAMP := $(VENV)/.stamp-tools
CONFIGURE := cmake -G Ninja -UHYPERSTREAMS_TORCH_DIR -Upybind11_DIR -DPython_EXECUTABLE="$(abspath $(BIN)/python)" -DHYPERSTREAMS_WERROR=$(WERROR)

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18
	@echo "variables: PYTHON=$(PYTHON) TORCH=$(TORCH) TORCH_INDEX=$(TORCH_INDEX) JOBS=$(JOBS) QUICK=1 (demo)"
	@echo "CPU build of PyTorch: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu"

setup: $(TOOLS_STAMP)  ## virtual environment .venv with PyTorch, this package and its tools

$(VENV_STAMP):
	@test -n "$(BASE_PYTHON)" || { echo "make: $(PYTHON) not found: install Python >= 3.10 or set PYTHON=" >&2; exit 1; }
	@"$(BASE_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: $(PYTHON) is older than 3.10: set PYTHON=python3.x" >&2; exit 1; }
	@"$(BASE_PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv or ensurepip module: install it (Debian, Ubuntu: apt-get install python3-venv) or set PYTHON= to another Python" >&2; exit 1; }
	"$(BASE_PYTHON)" -m venv --clear "$(VENV)"
	@touch "$@"

$(TORCH_STAMP): $(VENV_STAMP)
	pip install $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") "$(TORCH)"
	@rm -f "$(VENV)"/.stamp-torch-*; touch "$@"

# The package itself is put on the path without a compile; `make build` puts the libraries beside it.
$(TOOLS_STAMP): $(TORCH_STAMP) pyproject.toml
	pip install --quiet --editable '.[dev]' --config-settings=wheel.cmake=false --config-settings=editable.mode=inplace
	@sh cmake/googletest.sh
	@touch "$@"

build/dev/build.ninja: $(TOOLS_STAMP)
	$(CONFIGURE) --preset dev -DHYPERSTREAMS_INFO=ON

build: build/dev/build.ninja  ## compile the libraries into python/hyperstreams, and GoogleTest's executables
	@cmake --build build/dev --parallel $(JOBS)

test: build  ## GoogleTest and pytest
	ctest --test-dir build/dev --no-tests=error --output-on-failure --parallel $(JOBS)
	OMP_NUM_THREADS=1 python -m pytest $(if $(filter-out 1,$(PYTEST_JOBS)),-n $(PYTEST_JOBS)) $(PYTEST_ARGS)

demo: build  ## train four small models and write runs/demo/report.html (QUICK=1: about two minutes)
	python -m hyperstreams demo $(if $(QUICK),--quick)

smoke: build  ## the demo in a minute: four models, a few steps each
	python -m hyperstreams demo --steps $(SMOKE_STEPS) --out build/smoke

lint: setup  ## ruff, mypy, clang-format, whitespace: the hooks of .pre-commit-config.yaml on every file
	pre-commit run --all-files --show-diff-on-failure

cuda: build  ## compile the CUDA library without a GPU (spilled registers and stack above its limit are errors) and try it
	$(CONFIGURE) --preset cuda -DHYPERSTREAMS_CUDA_ARCHS="$(CUDA_ARCHS)"
	cmake --build build/cuda --target _C_cuda --parallel $(JOBS)
	OMP_NUM_THREADS=1 python -m pytest tests/python/cuda tests/python/packaging/test_libraries.py -k "cuda"

sanitize: setup  ## GoogleTest under AddressSanitizer and UndefinedBehaviorSanitizer
	$(CONFIGURE) --preset sanitize
	cmake --build build/sanitize --parallel $(JOBS)
	ctest --test-dir build/sanitize --no-tests=error --output-on-failure --parallel $(JOBS)

wheel: setup  ## install the package with pip into a fresh environment and try it outside the tree
	.ci/check-wheel "$(BIN)/python"

bench: build  ## time everything against its baselines; results in benchmarks/results
	python -m benchmarks

clean:  ## remove what was built; the environment and runs/ stay
	rm -rf build dist python/hyperstreams/*.so
