#!/usr/bin/env bash
# Runs a command beside a container engine of its own that has the images of the examples: in the engine's network namespace,
# with HEARTH_TEST_DOCKER naming its socket. The engine and all its containers are gone afterwards, also after a Ctrl-C.
#
# usage: scripts/with-engine.sh CMD...
set -euo pipefail
cd "$(dirname "$0")/.."
export HEARTH_WORK=$PWD/target/test-services

mkdir -p "$HEARTH_WORK"
exec 9>"$HEARTH_WORK/lock"
flock --nonblock 9 || {
  echo "with-engine: another run in this directory has the engine; wait for it to end" >&2
  exit 1
}

stop() {
  # The daemons must not keep the lock, nor may a second Ctrl-C keep them.
  trap '' INT TERM
  scripts/engine.sh remove 9>&-
  # The namespace was entered as root; what was written there is the caller's all the same.
  [ "$(id -u)" -eq 0 ] || sudo chown -R "$(id -u):$(id -g)" target
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What a run that was killed may have left.
scripts/engine.sh remove 9>&-
variables=$(scripts/engine.sh start 9>&-)
eval "$variables"
scripts/images.sh --docker-host "$HEARTH_TEST_DOCKER"
cd "$OLDPWD"
"$HEARTH_WORK/../../scripts/engine.sh" exec "$@" 9>&-
