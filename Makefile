# The commands of this project; `make` alone lists them.
# PYTHON chooses the interpreter that the virtual environments are made with.
PYTHON ?= python3
# What to install before the development environment, for another build of PyTorch than PyPI's.
TORCH ?=
# What an image is for, cpu or gpu; the command that builds it; and what else that is told, such as a base by its digest.
DEVICE ?= cpu
BUILDER ?=
BUILD_ARGS ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
COMMIT = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
SERVE := .venv-serve
DEV := .venv
GPU := .venv-gpu
PROTOS := .venv-protos
FUZZ := .venv-fuzz
SBOM := .venv-sbom
AUDIT := .venv-audit
OSV ?= https://api.osv.dev/v1/query
IN_PARALLEL := -n auto --maxprocesses 4 --dist loadfile
PIP := -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-hardened lint format protos model bench bench-peers fuzz chaos soak screenshots pictures image e2e gpu-check gpu-driver requirements sbom audit clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(SERVE)/ready  ## install the CPU server and start it (ARGS="--grpc-port 9001" for settings)
	@exec $(SERVE)/bin/digitserve serve $(ARGS)

setup: $(DEV)/ready  ## install what tests, training and development need

test: $(DEV)/ready  ## run the tests, with coverage (ARGS="--no-cov -n 0 -k batch" to pick)
	$(DEV)/bin/python -m pytest $(IN_PARALLEL) -m "not slow" --cov --cov-report=term $(ARGS)

test-slow: $(DEV)/ready  ## run the tests that take long
	$(DEV)/bin/python -m pytest $(IN_PARALLEL) -m slow $(ARGS)

test-hardened: $(DEV)/ready  ## run the tests as a restricted pod would: not root, no capabilities, read-only (Linux, as root)
	tests/robustness/hardened.sh $(DEV)/bin/python -m pytest $(IN_PARALLEL) -m "not slow and not clients and not browser" -p no:cacheprovider --no-cov $(ARGS)

lint: $(DEV)/ready $(PROTOS)/ready  ## style, types, and whether the generated code is what protoc makes
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(PROTOS)/bin/python protos/generate.py --check

format: $(DEV)/ready  ## put the code in order
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

protos: $(PROTOS)/ready  ## generate the Python code of protos/*.proto
	$(PROTOS)/bin/python protos/generate.py

model: $(DEV)/ready  ## train, export and verify the model, judge it and write its card (an hour and a half)
	$(DEV)/bin/python -m model_export train
	$(DEV)/bin/python -m model_export export
	$(DEV)/bin/python -m model_export verify
	$(DEV)/bin/python -m model_export evaluate --json models/digits/1/card/evaluation.json
	$(DEV)/bin/python -m model_export report --baselines

bench: $(DEV)/ready  ## measure start-up, memory and speed, on both transports (ARGS="--seconds 1 --only calls")
	$(DEV)/bin/python -m tests.load.bench --server $(DEV)/bin/digitserve $(ARGS)

bench-peers: $(DEV)/ready  ## measure MLServer, KServe, PyTriton and LitServe beside it, each installed on first use (1.6 GB)
	$(DEV)/bin/python -m tests.load.bench_peers $(ARGS)

pictures: $(DEV)/ready  ## draw the pictures of docs/how-it-works.md anew
	$(DEV)/bin/python -m tests.documented_pictures

screenshots: $(DEV)/ready  ## take the pictures of the page in docs (needs Node and chromium-headless-shell)
	$(DEV)/bin/python -m tests.browser

fuzz: $(FUZZ)/ready  ## send bytes nobody would send to what reads bytes, for 10 minutes (ARGS="--seconds 60")
	$(FUZZ)/bin/python -m tests.robustness.fuzz --seconds 600 $(ARGS)

chaos: $(DEV)/ready  ## attack a server, kill, stall and starve it beside a good caller, and measure hostile images (5 minutes)
	$(DEV)/bin/python -m tests.robustness.measure_images
	$(DEV)/bin/python -m tests.robustness.chaos $(ARGS)

soak: $(DEV)/ready  ## call a server for 10 minutes and see whether it grows (ARGS="--leaking" must fail)
	$(DEV)/bin/python -m tests.robustness.soak $(ARGS)

image:  ## build the container image with docker, podman or buildah (DEVICE=gpu for NVIDIA GPUs)
	@builder="$(BUILDER)"; \
	if [ -z "$$builder" ]; then \
		if docker info >/dev/null 2>&1; then builder="docker build"; \
		elif command -v podman >/dev/null; then builder="podman build --format docker"; \
		elif command -v buildah >/dev/null; then builder="buildah build --format docker"; \
		else echo "make image needs a running docker, podman or buildah; none is here" >&2; exit 1; fi; \
	fi; \
	set -x; $$builder --build-arg DEVICE=$(DEVICE) --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) \
		-t digitserve:$(DEVICE) $(BUILD_ARGS) .

e2e:  ## build the image and run it whole: load, proxies, a roll, a kill, alerts (Debian, as root)
	deploy/e2e.sh

gpu-check: gpu-driver $(GPU)/ready  ## on a machine with an NVIDIA GPU: test what only that shows, and measure it into docs/gpu.md
	$(GPU)/bin/python -m pytest -s tests/gpu
	$(GPU)/bin/python -m tests.gpu.bench

# Before gigabytes are installed.
gpu-driver:
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null || \
		{ echo "nothing to check: this machine has no NVIDIA driver (libcuda.so.1)" >&2; exit 1; }

requirements: $(DEV)/ready  ## pin the newest versions that pyproject.toml admits
	$(DEV)/bin/python requirements/compile.py

sbom: $(SERVE)/ready $(SBOM)/ready  ## list what the CPU server is made of, as CycloneDX, in build/digitserve.cdx.json
	@mkdir -p build
	@$(SBOM)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/digitserve.cdx.json $(SERVE)/bin/python
	@echo "build/digitserve.cdx.json"

audit: $(AUDIT)/ready  ## look up known weaknesses of everything that serves, at osv.dev (needs the network)
	@$(AUDIT)/bin/python -c 'import requests; requests.post("$(OSV)", json={}, timeout=20)' 2>/dev/null || \
		{ echo "nothing was looked up: $(OSV) cannot be reached" >&2; exit 1; }
	$(AUDIT)/bin/pip-audit -s osv --osv-url $(OSV) --disable-pip --require-hashes -r requirements/serve-cpu.txt -r requirements/serve-gpu.txt

clean:  ## remove the virtual environments and everything built
	rm -rf $(SERVE) $(DEV) $(GPU) $(PROTOS) $(SBOM) $(AUDIT) .venv-clients .venv-fuzz .venv-peers .venv-perf_analyzer .venv-node .venv-browser .venv-envoy .venv-*.lock build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Each environment is made anew when what it is made from changes.
$(SERVE)/ready: requirements/serve-cpu.txt pyproject.toml
	@echo "installing the CPU server into $(SERVE) ..."
	@$(call make_venv,$(SERVE))
	@$(SERVE)/bin/python $(PIP) install --require-hashes -r requirements/serve-cpu.txt
	@$(SERVE)/bin/python $(PIP) install --no-deps -e .
	@touch $@

$(DEV)/ready: requirements/dev.txt pyproject.toml
	@echo "installing the development environment into $(DEV), PyTorch included; this takes minutes ..."
	@$(call make_venv,$(DEV))
	@$(if $(TORCH),$(DEV)/bin/python $(PIP) install $(TORCH))
	@$(DEV)/bin/python $(PIP) install -r requirements/dev.txt
	@$(DEV)/bin/python $(PIP) install --no-deps -e .
	@touch $@

$(GPU)/ready: requirements/serve-gpu.txt requirements/gpu-check.txt pyproject.toml
	@echo "installing ONNX Runtime for GPUs into $(GPU), with CUDA and cuDNN (2.6 GB) ..."
	@$(call make_venv,$(GPU))
	@$(GPU)/bin/python $(PIP) install --require-hashes -r requirements/serve-gpu.txt
	@$(GPU)/bin/python $(PIP) install -r requirements/gpu-check.txt
	@$(GPU)/bin/python $(PIP) install --no-deps -e .
	@touch $@

$(FUZZ)/ready: requirements/serve-cpu.txt requirements/fuzz.txt pyproject.toml
	@$(call make_venv,$(FUZZ))
	@$(FUZZ)/bin/python $(PIP) install --require-hashes -r requirements/serve-cpu.txt
	@$(FUZZ)/bin/python $(PIP) install -r requirements/fuzz.txt
	@$(FUZZ)/bin/python $(PIP) install --no-deps -e .
	@touch $@

$(PROTOS)/ready: requirements/protos.txt
	@$(call make_venv,$(PROTOS))
	@$(PROTOS)/bin/python $(PIP) install -r requirements/protos.txt
	@touch $@

$(SBOM)/ready: requirements/sbom.txt
	@$(call make_venv,$(SBOM))
	@$(SBOM)/bin/python $(PIP) install -r requirements/sbom.txt
	@touch $@

$(AUDIT)/ready: requirements/audit.txt
	@$(call make_venv,$(AUDIT))
	@$(AUDIT)/bin/python $(PIP) install -r requirements/audit.txt
	@touch $@

define make_venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "digitserve needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another with PYTHON=python3.12" >&2; exit 1; }; \
$(PYTHON) -m venv $(1)
endef
