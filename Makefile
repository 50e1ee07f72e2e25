# What people type. `make test` is what CI runs.

.PHONY: help demo build test lint bench bench-scaling cluster

help: ## Says what there is.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20

demo: build ## Runs a lease through its life, with nothing installed: SQLite and manifests.
	@tests/demo target/debug

build: ## Builds the server and tmsctl.
	cargo build --package tms-server --package tmsctl

test: ## Runs every test, installing and building what they need. Needs root for the cluster.
	@tests/run

lint: ## Checks the form of the code.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

bench: ## Measures: ratios within one run.
	@tests/bench

bench-scaling: ## Measures how real Tritons scale under load, and draws docs/scaling.svg.
	@tests/bench scaling

cluster: ## Leaves a test cluster with a real node running and says how to use it.
	@tests/try
