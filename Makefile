# The recipes of the project; each is one command or one script. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help deps build demo test test-all bench chaos lint shellcheck examples images

help: ## Lists these recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Installs what build, demo, test and bench need, where it is missing
	scripts/deps.sh

build: ## Builds target/release/hearth
	scripts/deps.sh build
	cargo build --release --workspace --bin hearth

demo: ## Shows three nodes that share their work, and one of them killed
	scripts/demo.sh

test: ## Runs the whole suite, on its own container engine and etcd
	scripts/test.sh

test-all: ## Runs the suite with its long tests
	scripts/test.sh --all

bench: ## Measures against nginx and the container engine, prints a table
	scripts/bench.sh $(ARGS)

chaos: ## Kills nodes, stores, links and disks under load: make chaos ARGS="--minutes 5 --scenarios all"
	scripts/chaos.sh $(ARGS)

lint: ## Checks format, clippy, docs and scripts, and dependencies where cargo-deny is there
	scripts/lint.sh

shellcheck: ## Checks the scripts alone
	scripts/deps.sh lint
	shellcheck scripts/*.sh .ci/run

examples: ## Builds the example functions into target/examples/bin
	scripts/examples.sh

images: ## Builds the images of the example functions: make images ARGS="--docker-host unix:///var/run/docker.sock"
	scripts/images.sh $(ARGS)
