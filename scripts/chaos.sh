#!/usr/bin/env bash
# Kills nodes under load and checks from outside what was promised; see cluster-tests.
#
# usage: scripts/chaos.sh [--minutes N] [--scenarios all|NAME,...] [--seed N]      without either: 5 minutes, and all scenarios
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build test
cargo build --workspace --bins
scripts/with-engine.sh "${CARGO_TARGET_DIR:-target}/debug/chaos" "$@"
