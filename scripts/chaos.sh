#!/usr/bin/env bash
# Kills nodes under load and checks from outside what was promised; see cluster-tests.
#
# usage: scripts/chaos.sh [--minutes N] [--seed N]
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build test
cargo build --workspace --bins
scripts/with-engine.sh "${CARGO_TARGET_DIR:-target}/debug/chaos" "$@"
