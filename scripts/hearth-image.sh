#!/usr/bin/env bash
# Builds hearth as one static file and the image hearth:latest from it.
#
# usage: scripts/hearth-image.sh [--docker-host URL] [--dev]      --dev: without optimisation, in half the time
set -euo pipefail
cd "$(dirname "$0")/.."

engine=()
profile=release
folder=release
while [ $# -gt 0 ]; do
  case $1 in
    --docker-host)
      engine=(-H "${2:?a URL must follow --docker-host}")
      shift 2
      ;;
    --dev)
      profile=dev
      folder=debug
      shift
      ;;
    *)
      echo "usage: scripts/hearth-image.sh [--docker-host URL] [--dev]" >&2
      exit 64
      ;;
  esac
done

scripts/deps.sh build
target=${CARGO_TARGET_DIR:-target}
triple=$(rustc --version --verbose | sed -n 's/^host: //p')
# With the target named, build scripts and macros of dependencies are left out of the static link.
RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --workspace --bin hearth --profile "$profile" --target "$triple" --target-dir "$target/static"

rm -rf target/image
install -D --strip "$target/static/$triple/$folder/hearth" target/image/hearth
install -d -m 1777 target/image/tmp
for certificates in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
  [ ! -e "$certificates" ] || {
    install -D -m 644 "$certificates" target/image/etc/ssl/certs/ca-certificates.crt
    break
  }
done
docker "${engine[@]}" build --quiet --tag hearth:latest .
