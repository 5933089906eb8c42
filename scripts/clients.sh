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
python3 -m venv "$into/venv"
"$into/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$from/requirements.txt"
# Last, so that an installation that was broken off is made anew.
printf '%s\n' "$locked" >"$into/locked"
