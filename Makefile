# `make` or `make help` lists what there is. Everything works from a clean clone with a Rust toolchain and a C compiler.

CARGO ?= cargo
KILLS ?= 2000
MESSAGES ?= 100000
SEEDS ?= 100000
FAULTS ?= 400
MINUTES ?= 60

.DEFAULT_GOAL := help
.PHONY: help run cluster test check fmt verify fix bench costs tiers soak chaos sim reference doc deny clients cassandra collector

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  \1\t/' | expand -t 14

run: ## build and start a server for localhost, data in ./data
	$(CARGO) run --release --bin starling -- serve --set 'domains=["localhost"]' --set data_dir=data

cluster: ## three routers and three edges on a CQL server of their own, to try and to kill; Ctrl-C ends all
	@tests/cluster-up

test: ## everything: unit tests, scripts, hostile input, real clients, crashes, on every store; ends with a sum
	@tests/run

check: ## format, lints and unit tests: before each commit
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace --lib --bins

fmt: ## format the code
	$(CARGO) fmt --all

verify: ## what a reviewer checks, writing nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked

fix: ## format, and apply what clippy can repair by itself
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all

bench: ## the load generator against a release build
	$(CARGO) build --release --bin starling
	$(CARGO) run --release -p starling-benchmarks

costs: ## what the stores cost: appends, pages, requests of a message, a login to 10,000 messages
	$(CARGO) build --release --bin starling
	$(CARGO) run --release -p starling-benchmarks -- store append
	$(CARGO) run --release -p starling-benchmarks -- store pages
	$(CARGO) run --release -p starling-benchmarks -- archive
	$(CARGO) run --release -p starling-benchmarks -- statements
	$(CARGO) run --release -p starling-benchmarks -- compare --servers starling,cql --loads chat,open,backlog

tiers: ## what a cluster costs beside one process, and how soon it goes on after kills: ten minutes
	@tests/cassandra/install
	$(CARGO) build --release --bin starling
	$(CARGO) run --release -p starling-benchmarks -- cluster

soak: ## the crash test and the faults of a CQL server for hours: KILLS=2000 MESSAGES=100000
	$(CARGO) build --bin starling
	CRASH_KILLS=$(KILLS) $(CARGO) test -p starling-tests --test crash
	FAULTS_MESSAGES=$(MESSAGES) $(CARGO) test -p starling-tests --test faults

chaos: ## faults of a cluster for an hour, with the figures in docs/chaos.md: FAULTS=400 MINUTES=60 STARLING_OLD_BIN=an older starling
	@tests/namespaces/install
	@tests/cassandra/install
	$(CARGO) build --release --bin starling
	STARLING_BIN=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/starling \
		CLUSTER_FAULTS=$(FAULTS) CLUSTER_MINUTES=$(MINUTES) CLUSTER_PACE=1 CLUSTER_REPORT=$(CURDIR)/docs/chaos.md \
		$(CARGO) test -p starling-tests --test cluster -- survives

sim: ## the simulation, over many seeds, half of them of one server, half of a cluster: SEEDS=100000
	SIM_SEEDS=$(SEEDS) $(CARGO) test --release -p starling-tests --test sim

reference: ## the scripts against Prosody and ejabberd from Debian
	@tests/reference

clients: ## fetch the real clients that the tests use, into .cache
	@tests/clients/install

cassandra: ## fetch the CQL server that the tests use (Apache Cassandra, 67 MB), into .cache
	@tests/cassandra/install

collector: ## build the OpenTelemetry Collector that a test exports to, into .cache: needs Go, and some minutes
	@tests/collector/install

doc: ## the API documentation
	$(CARGO) doc --workspace --no-deps

deny: ## licences, sources and forbidden crates (needs cargo-deny)
	$(CARGO) deny check bans licenses sources
