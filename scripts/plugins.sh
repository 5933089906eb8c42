#!/usr/bin/env bash
# Builds the example plugins into target/plugins: guard.wasm, from Rust, and stamp.wasm, from AssemblyScript.
#
# usage: scripts/plugins.sh [--rustc]      --rustc: only prints the rustc that it would take, or fails
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/target/plugins

die() {
  printf 'plugins: %s\n' "$*" >&2
  exit 1
}

# The first rustc that has library and linker of the target; a distribution's own may have them where that of rustup has not.
rustc_for_wasm() {
  local rustc
  for rustc in "${RUSTC:-rustc}" /usr/bin/rustc; do
    if command -v "$rustc" >/dev/null && has_library "$rustc" && has_linker "$rustc"; then
      printf '%s\n' "$rustc"
      return
    fi
  done
  return 1
}

has_library() {
  local libdir
  libdir=$("$1" --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) || return 1
  compgen -G "$libdir/libstd-*" >/dev/null
}

has_linker() {
  command -v rust-lld >/dev/null || compgen -G "$("$1" --print sysroot)/lib/rustlib/*/bin/rust-lld" >/dev/null
}

if [ "${1:-}" = --rustc ]; then
  rustc_for_wasm
  exit
fi
mkdir -p "$out"

rustc=$(rustc_for_wasm) \
  || die 'no rustc here has the target wasm32-unknown-unknown; run scripts/deps.sh test, or: rustup target add wasm32-unknown-unknown'
"$rustc" --edition 2021 -C opt-level=s -C lto=fat --crate-type cdylib --target wasm32-unknown-unknown -C strip=symbols \
  examples/plugins/guard/plugin.rs -o "$out/guard.wasm"

command -v npm >/dev/null || die 'no npm here; run scripts/deps.sh test'
# The compiler is installed beside the output, once for each version of it, so that no folder of the sources is written to.
package=examples/plugins/stamp/package.json
if ! cmp --quiet "$package" "$out/npm/installed.json"; then
  rm -rf "$out/npm"
  mkdir -p "$out/npm"
  cp "$package" "$out/npm/package.json"
  (cd "$out/npm" && npm install --silent --no-audit --no-fund --no-package-lock)
  cp "$package" "$out/npm/installed.json"
fi
(cd examples/plugins/stamp && "$out/npm/node_modules/.bin/asc" assembly/index.ts --outFile "$out/stamp.wasm" --optimize --runtime stub)
