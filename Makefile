# Two commands do everything on a fresh machine: `make serve` and `make test`.
# They need rustc, gcc, make and python3 with pip; the rest is fetched here.

PYTHON ?= python3
CARGO ?= cargo
ORT_DIR := $(CURDIR)/.ort
# A library of your own: make serve ORT_DYLIB_PATH=/path/to/libonnxruntime.so
export ORT_DYLIB_PATH ?= $(ORT_DIR)/libonnxruntime.so
export ORT_DISABLE_TELEMETRY = 1
ARGS ?=
# make serve DEVICE=cuda: NVIDIA's GPUs, with ONNX Runtime's build for them
DEVICE ?=
CUDA_DIR := $(ORT_DIR)/cuda
ifneq ($(filter cuda%,$(DEVICE)),)
ifeq ($(ORT_DYLIB_PATH),$(ORT_DIR)/libonnxruntime.so)
export ORT_DYLIB_PATH := $(CUDA_DIR)/libonnxruntime.so
endif
endif

.DEFAULT_GOAL := help
.PHONY: help serve build test sanitize openapi-test lint fmt bench sweep oha loadtest overload soak faults hostile fuzz onnxruntime cuda gpu-check test-cuda clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  make serve ARGS="--listen 0.0.0.0:8000 --config my.toml" passes arguments on.\n'

serve: build ## fetch what is needed, build, serve the shipped model on 127.0.0.1:8000
	@exec target/release/oddlog serve $(addprefix --device ,$(DEVICE)) $(ARGS)

build: onnxruntime ## build target/release/oddlog
	$(CARGO) build --release --locked

test: onnxruntime lint ## every check and test
	$(CARGO) test --release --locked
	@$(MAKE) --no-print-directory openapi-test

openapi-test: build ## hold the server to its own OpenAPI document (schemathesis, into .venv/)
	$(PYTHON) scripts/check_openapi.py target/release/oddlog $(CURDIR)/.venv

lint: ## formatting and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- --deny warnings

fmt: ## format the code
	$(CARGO) fmt

sanitize: ## the tests of src/kernel under AddressSanitizer, and under valgrind if there is one
	$(PYTHON) scripts/sanitize_kernel.py $(CURDIR)/target/sanitize

bench: onnxruntime ## micro-benchmarks: queue, tokenizer, engine, model
	$(CARGO) bench --locked --bench core --bench kernel

sweep: build oha ## base-size DeBERTa beside what users run today, LINES=FILE (needs torch, transformers, onnx, onnxruntime)
	$(PYTHON) benches/run_sweep.py --lines $(LINES) $(ARGS)

oha: loadtest/.tools/bin/oha ## install the load generator oha into loadtest/.tools/ (about 5 minutes)

loadtest/.tools/bin/oha:
	$(CARGO) install oha --version 1.16.0 --locked --root loadtest/.tools

loadtest/bodies.ndjson:
	$(PYTHON) loadtest/bodies.py $@

loadtest: oha loadtest/bodies.ndjson ## sweep the concurrency against a running server, into loadtest/runs/
	$(PYTHON) loadtest/sweep.py $(ARGS)

overload: build oha ## what happens beyond capacity, into loadtest/runs/ (about 3 minutes)
	$(PYTHON) loadtest/overload.py $(ARGS)

soak: build ## memory of a server at capacity, into loadtest/runs/ (30 minutes; ARGS="--minutes 5")
	$(PYTHON) loadtest/soak.py $(ARGS)

faults: build ## devices that fail under load, into loadtest/runs/ (about 3 minutes)
	$(PYTHON) loadtest/faults.py $(ARGS)

hostile: build ## hostile clients beside one that behaves, and SIGTERM under load, into loadtest/runs/ (about 6 minutes)
	$(PYTHON) loadtest/hostile.py $(ARGS)
	$(PYTHON) loadtest/sigterm.py

fuzz: onnxruntime ## fuzz each target, RUNS=200000 times (needs cargo-fuzz; RUSTC_BOOTSTRAP lets a stable compiler count coverage)
	@cd fuzz && for target in body lines head text templates config; do mkdir -p corpus/$$target && \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target corpus/$$target seeds/$$target -- -runs=$(or $(RUNS),200000) \
	  -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 || exit 1; done

onnxruntime: ## fetch ONNX Runtime's pinned library into .ort/, once
ifeq ($(ORT_DYLIB_PATH),$(ORT_DIR)/libonnxruntime.so)
	@$(PYTHON) scripts/fetch_onnxruntime.py $(ORT_DIR)
else ifeq ($(ORT_DYLIB_PATH),$(CUDA_DIR)/libonnxruntime.so)
	@$(PYTHON) scripts/fetch_cuda.py $(CUDA_DIR) $(if $(WHEELS),--wheels $(WHEELS))
endif

cuda: ## fetch ONNX Runtime's CUDA build and its libraries into .ort/cuda/ (1.3 GiB), once; WHEELS=DIR: from there
	@$(PYTHON) scripts/fetch_cuda.py $(CUDA_DIR) $(if $(WHEELS),--wheels $(WHEELS))

test-cuda: onnxruntime cuda ## ONNX Runtime's CUDA build without a GPU: what it says, and what it does on a runtime that computes nothing
	GPU_LIBS=$(CUDA_DIR) $(CARGO) test --release --locked --test it cuda

gpu-check: build ## everything that only a GPU can show, to one JSON and a table (make gpu-check DEVICE=cuda; cpu = a dry run)
	$(PYTHON) benches/gpu_check.py --device $(or $(DEVICE),cuda) $(ARGS)

clean: ## remove what was built and fetched
	$(CARGO) clean
	rm -rf $(ORT_DIR)
