#!/usr/bin/env bash
# Builds the example functions, statically linked, into target/examples/bin.
#
# usage: scripts/examples.sh [NAME...]      (no name: all)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(cd examples && printf '%s\n' */Cargo.toml | xargs dirname)

# Named, since flags for a static link would go for procedural macros, too, where the target is not.
target=$(rustc --version --verbose | sed -n 's/^host: //p')

for name in "${names[@]}"; do
  [ -e "examples/$name/Cargo.toml" ] || {
    echo "examples: there is no example '$name' in examples/" >&2
    exit 1
  }
  # Each folder's own .cargo/config.toml asks for the static link; flags and targets of the caller would overrule it.
  (
    cd "examples/$name"
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
      cargo build --release --quiet --locked --target "$target" --target-dir "$root/target/examples"
  )
  mkdir -p target/examples/bin
  ln -f "target/examples/$target/release/$name" "target/examples/bin/$name"
done
