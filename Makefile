# The commands of this project. `make help` lists them. Each does its own set-up.

PRESET ?= release
PREFIX ?= /usr/local
PROGRAM = build/$(PRESET)/bin/headwise
STAMP := $(shell date +%Y%m%d-%H%M%S)
RESULTS ?= results
# Sets or peers, with blanks or commas: the environments to make, and whom to measure beside the kernels.
PEERS ?=
comma := ,
PEER_NAMES = $(subst $() ,$(comma),$(strip $(subst $(comma), ,$(PEERS))))
PEER_FLAGS = $(if $(PEER_NAMES),--peers '$(PEER_NAMES)')
BENCH_FLAGS ?= --suite $(if $(PEER_NAMES),peers --seconds 1,default) --out $(RESULTS)/$(STAMP).jsonl --report $(RESULTS)/$(STAMP).html
SMOKE = build/$(PRESET)/smoke
# The first configuration of a machine that has no test packages; later ones keep what was set.
WITHOUT_TESTS = $(if $(wildcard build/$(PRESET)/CMakeCache.txt),,-DHEADWISE_TESTS=OFF)

.DEFAULT_GOAL := help
.PHONY: help setup build peers bench smoke test check lint format install clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install what is missing: packages, chart renderer
	@tools/setup.sh build test charts

build:  ## build the program: build/release/bin/headwise
	@tools/setup.sh build
	@tools/build.sh $(PRESET) $(WITHOUT_TESTS)

peers:  ## other people's attention, into build/peers: says what it fetches (PEERS="torch jax", DRY_RUN=1)
	@tools/peers.sh $(if $(filter-out 0,$(DRY_RUN)),--dry-run) '$(PEERS)'

bench:  ## measure the default suite here: results/<time>.jsonl and .html (BENCH_FLAGS); PEERS="torch" beside it
	@tools/setup.sh build charts
	@$(if $(PEER_NAMES),tools/peers.sh '$(PEERS)')
	@tools/build.sh $(PRESET) $(WITHOUT_TESTS) headwise_program
	@mkdir -p $(RESULTS)
	@$(PROGRAM) bench $(PEER_FLAGS) $(BENCH_FLAGS)

smoke:  ## a few seconds of benchmark: every row must be right, the report drawn
	@tools/setup.sh build
	@tools/build.sh $(PRESET) $(WITHOUT_TESTS) headwise_program
	@mkdir -p $(SMOKE)
	@$(PROGRAM) bench --suite smoke --seconds 0.2 --quiet \
	  --out $(SMOKE)/rows.jsonl --report $(SMOKE)/report.html
	@test -s $(SMOKE)/report.html
	@test "$$(grep -c '"status":"ok"' $(SMOKE)/rows.jsonl)" -ge 8

test:  ## every test that needs no GPU
	@tools/setup.sh build test
	@tools/test.sh $(PRESET)

check:  ## lint, warnings as errors, report in a browser, conformance, sanitizers (needs clang 19)
	@tools/setup.sh build test check
	@tools/check.sh

lint:  ## clang-format and clang-tidy
	@tools/setup.sh build test check
	@tools/lint.sh

format:  ## rewrite the sources in the project's style
	@tools/lint.sh fix

install: build  ## install library, headers, program and data below PREFIX
	@cmake --install build/$(PRESET) --prefix $(PREFIX)

clean:  ## remove what was built, but for what was fetched (renderer, peers, conformance cases); results stay
	@rm -rf build/release build/debug build/ci build/asan build/tsan
