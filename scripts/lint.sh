#!/usr/bin/env bash
# Format, clippy and docs of the workspace and of the examples, the scripts, and the dependencies where cargo-deny is there.
#
# usage: scripts/lint.sh
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

scripts/deps.sh build
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items

for manifest in examples/*/Cargo.toml; do
  folder=$(dirname "$manifest")
  (cd "$folder" && cargo fmt --check && cargo clippy --quiet --release --target-dir "$root/target/examples" -- -D warnings)
  # Each folder stands alone, so the server is in several; it is one file all the same.
  [ ! -e "$folder/src/http.rs" ] || cmp examples/hello/src/http.rs "$folder/src/http.rs"
done

make --no-print-directory shellcheck
if cargo deny --version >/dev/null 2>&1; then
  cargo deny --log-level error check bans licenses sources
  if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny --log-level error --offline check advisories
  else
    echo 'lint: the database of advisories cannot be fetched, so they are not checked'
  fi
else
  echo 'lint: no cargo-deny here, so licences, owners and advisories are not checked'
fi
