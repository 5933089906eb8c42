#!/usr/bin/env bash
# Installs the client libraries of cluster-tests/clients, as locked there, into target/clients; nothing when they are there already.
#
# usage: scripts/clients.sh
set -euo pipefail
cd "$(dirname "$0")/.."

from=cluster-tests/clients
into=target/clients
locked=$(cat "$from"/{package.json,package-lock.json,requirements.txt} | sha256sum)
[ "$(cat "$into/locked" 2>/dev/null)" != "$locked" ] || exit 0

echo 'clients: installing the client libraries into target/clients'
rm -rf "$into"
mkdir -p "$into"
cp "$from"/{package.json,package-lock.json,.npmrc} "$into"
npm ci --prefix "$into" --ignore-scripts --loglevel=error
# The one package that is built here. Node's headers are those beside it, where they are there; else node-gyp fetches them.
headers=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
[ ! -e "$headers/include/node/node.h" ] || export npm_config_nodedir=$headers
npm rebuild --prefix "$into" aws-lambda-ric --loglevel=error >"$into/aws-lambda-ric.log" 2>&1 || {
  tail -n 40 "$into/aws-lambda-ric.log" >&2
  exit 1
}
python3 -m venv "$into/venv"
"$into/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$from/requirements.txt"
# Last, so that an installation that was broken off is made anew.
printf '%s\n' "$locked" >"$into/locked"
