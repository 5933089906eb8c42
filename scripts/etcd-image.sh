#!/usr/bin/env bash
# Makes the image hearth-etcd:latest from the system's etcd and the libraries it links, for machines that reach no registry.
#
# usage: scripts/etcd-image.sh [--docker-host URL]
set -euo pipefail
cd "$(dirname "$0")/.."

engine=()
if [ "${1:-}" = --docker-host ]; then
  engine=(-H "${2:?a URL must follow --docker-host}")
fi

scripts/deps.sh demo
etcd=$(command -v etcd)
image=$(mktemp -d)
trap 'rm -rf "$image"' EXIT

chmod 755 "$image"
install -D "$etcd" "$image/usr/local/bin/etcd"
install -d -m 1777 "$image/tmp"
# Libraries keep their paths, for that is where the loader looks; ldd prints none for a static etcd.
ldd "$etcd" 2>/dev/null | grep -o '/[^ )]*' | while read -r library; do
  install -D "$library" "$image$library"
done || true
tar --create --directory "$image" --owner 0 --group 0 . \
  | docker "${engine[@]}" import --change 'ENV PATH=/usr/local/bin' --change 'CMD ["etcd"]' --change 'EXPOSE 2379 2380' \
    - hearth-etcd:latest >/dev/null
echo "etcd-image: hearth-etcd:latest is made; use it with HEARTH_ETCD_IMAGE=hearth-etcd:latest"
