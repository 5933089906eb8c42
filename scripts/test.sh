#!/usr/bin/env bash
# The whole suite: installs what it needs, builds, starts a container engine of its own, tests, then checks format and lints.
# Tests start the etcd and the nodes they need themselves.
#
# usage: scripts/test.sh [--all] [NEXTEST ARGUMENT...]      --all: the long tests, too
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"

profile=default
if [ "${1:-}" = --all ]; then
  profile=all
  # Outages last as long as they would, not just longer than the timeout that they test.
  export HEARTH_TEST_FULL=1
  shift
fi

scripts/deps.sh build test
cargo fmt --all --check
# Built and installed before the engine starts, since its network namespace has no way to a package registry. The binaries come
# along in the same build as the tests, which run them.
cargo build --workspace --bins --tests
scripts/plugins.sh
scripts/clients.sh
scripts/with-engine.sh cargo nextest run --workspace --profile "$profile" "$@"
# Says nothing when all is well, so that the summary of the tests stays the last word.
cargo clippy --quiet --workspace --all-targets -- -D warnings
