#!/usr/bin/env bash
# Builds the example functions and puts each into the local container engine as hearth-example-NAME:latest: a file system of
# one static file, imported, so no registry is asked. An image that is up to date is left as it is.
#
# usage: scripts/images.sh [--docker-host URL] [NAME...]      (no name: all)
set -euo pipefail
cd "$(dirname "$0")/.."

engine=()
if [ "${1:-}" = --docker-host ]; then
  engine=(-H "${2:?a URL must follow --docker-host}")
  shift 2
fi

names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(cd examples && printf '%s\n' */Cargo.toml | xargs dirname)
scripts/examples.sh "${names[@]}"

command -v docker >/dev/null || {
  echo "images: no docker here; scripts/deps.sh test installs it" >&2
  exit 1
}

for name in "${names[@]}"; do
  image=hearth-example-$name:latest
  # The folder's Dockerfile is what a person builds with; the instructions after its COPY make the same image here.
  mapfile -t changes < <(grep -E '^(EXPOSE|ENTRYPOINT|ENV|CMD) ' "examples/$name/Dockerfile")
  digest=$({ cat "target/examples/bin/$name"; printf '%s\n' "${changes[@]}"; } | sha256sum | cut -d ' ' -f 1)
  label='{{ index .Config.Labels "hearth.example.digest" }}'
  have=$(docker "${engine[@]}" image inspect --format "$label" "$image" 2>/dev/null || true)
  if [ "$have" = "$digest" ]; then
    echo "images: $image is up to date"
    continue
  fi
  options=(--change "LABEL hearth.example.digest=$digest")
  for change in "${changes[@]}"; do options+=(--change "$change"); done
  # The base system's users and times stay out of the image.
  tar --create --directory target/examples/bin --owner 0 --group 0 --mtime @0 "$name" \
    | docker "${engine[@]}" import "${options[@]}" - "$image" >/dev/null
  echo "images: $image is made"
done
