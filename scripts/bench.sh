#!/usr/bin/env bash
# Builds with optimisation, then measures Hearth beside nginx and the container engine, in one run; see cluster-tests.
#
# usage: scripts/bench.sh [ARGUMENT OF THE BENCH...]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build test bench
cargo build --release --workspace --bins --examples
scripts/with-engine.sh "${CARGO_TARGET_DIR:-target}/release/bench" "$@"
