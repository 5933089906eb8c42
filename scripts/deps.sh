#!/usr/bin/env bash
# Installs what is missing, with the system's package manager. What is there already is left alone, wherever it came from,
# and no service of a new package is started or set to start at boot.
#
# usage: scripts/deps.sh [build] [demo] [test] [bench] [lint] [compose]      (no group: all but lint and compose)
set -euo pipefail
cd "$(dirname "$0")/.."
# Daemons are found also by somebody whose PATH has no sbin directories.
export PATH="$PWD/target/tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

die() {
  printf 'deps: %s\n' "$*" >&2
  exit 1
}

groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(build demo test bench)

missing=()

# need PACKAGE TEST...: the package is missing when the test fails.
need() {
  local package=$1
  shift
  if ! "$@" >/dev/null 2>&1; then missing+=("$package"); fi
}

# has COMMAND...: all of them are on PATH.
has() {
  local name
  for name; do command -v "$name" || return 1; done
}

# Functions for images from scratch are linked statically.
has_static_libc() {
  [ -e "$(cc -print-file-name=libc.a)" ]
}

# The only file of an image, so it needs no library.
has_static_busybox() {
  local file
  file=$(command -v busybox) && ! ldd "$file"
}

# A virtual environment gets its pip from a package of its own.
has_venv() {
  python3 -c 'import venv, ensurepip'
}

has_compose() {
  has docker-compose || docker compose version
}

# etcd-client reads descriptor.proto and struct.proto beside its own files.
has_well_known_protos() {
  local protoc dir
  protoc=$(command -v "${PROTOC:-protoc}") || return 1
  for dir in "${PROTOC_INCLUDE:-/usr/include}" /usr/include "$(dirname "$(readlink -f "$protoc")")/../include"; do
    [ ! -e "$dir/google/protobuf/struct.proto" ] || return 0
  done
  return 1
}

for group in "${groups[@]}"; do
  case $group in
    build)
      need gcc has cc
      need libc6-dev has_static_libc
      need protobuf-compiler has "${PROTOC:-protoc}"
      need libprotobuf-dev has_well_known_protos
      ;;
    demo)
      need etcd-server has etcd
      need curl has curl
      ;;
    test)
      need etcd-server has etcd
      need etcd-client has etcdctl
      need nats-server has nats-server
      need docker.io has dockerd containerd
      # Newer Debian has the client in a package of its own; see resolve_names.
      need docker-cli has docker
      need iptables has iptables
      need iproute2 has ip
      # What looks around in a container of a function.
      need busybox-static has_static_busybox
      # A node whose clock is off, for the test of schedules.
      need faketime has faketime
      need curl has curl
      # For the example plugins. A rustup that has the target (rustup target add wasm32-unknown-unknown) needs none of the three.
      need rustc scripts/plugins.sh --rustc
      need libstd-rust-dev-wasm32 scripts/plugins.sh --rustc
      need lld scripts/plugins.sh --rustc
      need nodejs has node
      need npm has npm
      # What npm's aws-lambda-ric builds its client with.
      need g++ has c++
      need make has make
      need cmake has cmake
      need autoconf has autoconf
      need automake has automake
      need libtool has libtoolize
      need python3-venv has_venv
      need chromium has chromium
      ;;
    bench)
      need nginx-light has nginx
      need wrk has wrk
      need openssl has openssl
      ;;
    lint)
      need shellcheck has shellcheck
      ;;
    compose)
      need docker-compose has_compose
      ;;
    *) die "no group '$group'; the groups are build, demo, test, bench, lint and compose" ;;
  esac
done

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"
}

# Puts the names that this release of the distribution has in place of those it has not.
resolve_names() {
  local package
  for package in "${missing[@]}"; do
    if [ "$package" = docker-cli ] && ! apt-cache show docker-cli >/dev/null 2>&1; then
      package=docker.io
    fi
    printf '%s\n' "$package"
  done | sort -u
}

installed() {
  dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | awk '$1 == "ii" { print $2 }' | sort -u
}

# Debian starts the services of a package when it is installed, unless this file says no. A file that is there already is
# somebody's decision and stays.
policy=/usr/sbin/policy-rc.d
policy_is_ours=
forbid_service_starts() {
  [ ! -e "$policy" ] || return 0
  policy_is_ours=yes
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
  as_root chmod 755 "$policy"
}

allow_service_starts() {
  [ -z "$policy_is_ours" ] || as_root rm -f "$policy"
  policy_is_ours=
}

# Keeps services of the packages named on stdin from starting at the next boot.
disable_services() {
  command -v systemctl >/dev/null || return 0
  local package unit
  while read -r package; do
    # The list has lines without a unit, too; grep finding none is no error.
    { dpkg -L "$package" 2>/dev/null | grep -E '/systemd/system/[^/@]+\.(service|socket)$' || true; } | while read -r unit; do
      as_root systemctl disable --quiet "$(basename "$unit")" 2>/dev/null || true
    done
  done
}

if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null \
    || die "no apt-get here; install what these packages of Debian hold, then run this again: ${missing[*]}"
  [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null \
    || die "neither root nor sudo; as root, run: apt-get install ${missing[*]}"
  printf 'deps: installing %s\n' "${missing[*]}"
  log=$(mktemp)
  trap 'allow_service_starts; rm -f "$log"' EXIT
  forbid_service_starts
  before=$(installed)
  mapfile -t names < <(resolve_names)
  # Lists that are fresh enough save a minute; those that are not, or not there, are fetched.
  if ! apt_get install --no-install-recommends "${names[@]}" >"$log" 2>&1; then
    apt_get update
    mapfile -t names < <(resolve_names)
    apt_get install --no-install-recommends "${names[@]}" >"$log" 2>&1 || {
      tail -n 20 "$log" >&2
      die "apt-get could not install: ${names[*]}"
    }
  fi
  comm -13 <(printf '%s\n' "$before") <(installed) | disable_services
  allow_service_starts
fi

command -v cargo >/dev/null || die "no cargo here; install Rust from https://rustup.rs, then run this again"

case " ${groups[*]} " in
  *' test '*)
    if ! cargo nextest --version >/dev/null 2>&1; then
      echo 'deps: building cargo-nextest into target/tools (once, some minutes)'
      # Without the self-update it needs no TLS library; unoptimised it builds in half the time and runs tests as fast.
      cargo install cargo-nextest --locked --debug --root target/tools --target-dir target/tools/build \
        --no-default-features --features default-no-update
      rm -rf target/tools/build
    fi
    # Debian's NATS is for what one server keeps; what three keep needs a later one.
    wanted=$(cat cluster-tests/nats/requirements.txt)
    if [ "$(cat target/tools/nats/installed 2>/dev/null)" != "$wanted" ]; then
      echo 'deps: installing a NATS server for three replicas into target/tools/nats'
      rm -rf target/tools/nats
      python3 -m venv target/tools/nats
      target/tools/nats/bin/pip install --quiet --disable-pip-version-check --require-hashes -r cluster-tests/nats/requirements.txt
      # Last, so that an installation that was broken off is made anew.
      printf '%s\n' "$wanted" >target/tools/nats/installed
    fi
    ;;
esac
