#!/usr/bin/env bash
# Starts docker-compose.cluster.yml: etcd and three nodes in containers, on the engine of this machine. Makes the image
# hearth:latest and the secrets in .dev/ first where they are missing; the secrets are never committed.
#
# usage: scripts/compose-up.sh      (variables: see docker-compose.cluster.yml)
set -euo pipefail
cd "$(dirname "$0")/.."
export DOCKER_HOST=${DOCKER_HOST:-unix://${DOCKER_SOCKET:-/var/run/docker.sock}}

scripts/deps.sh compose
docker version >/dev/null || {
  echo "compose-up: no container engine answers at $DOCKER_HOST" >&2
  exit 1
}

# secret FILE: makes it, for its owner alone.
secret() {
  [ -s "$1" ] || (umask 077 && head -c 32 /dev/urandom | base64 >"$1")
}
mkdir -p .dev
secret .dev/cluster-secret
secret .dev/admin-token

docker image inspect hearth:latest >/dev/null 2>&1 || scripts/hearth-image.sh --docker-host "$DOCKER_HOST"

compose=(docker-compose)
command -v docker-compose >/dev/null || compose=(docker compose)
compose+=(-f docker-compose.cluster.yml)
"${compose[@]}" up -d

for node in n1 n2 n3; do
  deadline=$((SECONDS + 60))
  until [ "$(docker inspect --format '{{ .State.Health.Status }}' "$("${compose[@]}" ps -q "$node")")" = healthy ]; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      "${compose[@]}" logs --tail 20 "$node" >&2
      echo "compose-up: $node did not become ready within 60 s; the end of its log is above" >&2
      exit 1
    fi
    sleep 0.5
  done
  echo "compose-up: $node is ready"
done
cat <<'NEXT'

scripts/images.sh hello        # an example function, into the same engine
token="authorization: Bearer $(cat .dev/admin-token)"
curl -H "$token" -H 'content-type: application/json' 127.0.0.1:4001/v1/spaces/default/functions \
  -d '{"functionId":"hello","type":"container","provider":{"image":"hearth-example-hello:latest"}}'
curl -i -H "$token" -H 'content-type: application/json' 127.0.0.1:3010/invoke -d '{"function_name":"hello","payload":{"name":"Ada"}}'
docker-compose -f docker-compose.cluster.yml down
NEXT
