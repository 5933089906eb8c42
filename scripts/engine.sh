#!/usr/bin/env bash
# A container engine of the suite's own: own dockerd and containerd, own sockets, data and network namespace. An engine that
# runs already is neither used nor noticed: a second dockerd in one network namespace rewrites the firewall chains of the
# first, which is why this one lives in its own. Only commands run by `exec` are in there with it and reach the addresses of
# its containers; an engine that one of them starts, in another directory, joins it there.
#
# usage: scripts/engine.sh start          starts it; prints what `env` prints
#        scripts/engine.sh env            prints the variables that lead to it, for eval
#        scripts/engine.sh exec CMD...    runs a command in its network namespace, with those variables
#        scripts/engine.sh stop           stops it and its containers, as the end of a machine would; images, networks and
#                                         stopped containers are there again after the next start
#        scripts/engine.sh remove         stops it and removes all it has and made
#
# HEARTH_WORK is the directory it works in (target/engine); another one is another engine. There, docker.sock and docker.pid
# lead to its socket and its process id.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# These would send the client elsewhere.
unset DOCKER_API_VERSION DOCKER_CONTEXT DOCKER_HOST DOCKER_TLS_VERIFY

work=$(realpath -m "${HEARTH_WORK:-target/engine}")
data=$work/data
start_seconds_max=60
stop_seconds_max=15

die() {
  printf 'engine: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# The state of a running engine: `run`, the directory of its sockets; `namespace`; and `subnet`, the first half of its
# addresses. Paths of sockets may have 108 bytes at most, so theirs is not below the work directory.
load_state() {
  # shellcheck source=/dev/null
  [ -e "$work/state" ] && . "$work/state"
}

in_namespace() {
  as_root nsenter --net="/run/netns/$namespace" -- "$@"
}

engine_env() {
  printf 'export HEARTH_TEST_DOCKER=unix://%s/docker.sock\n' "$run"
  printf 'export HEARTH_TEST_NETNS=%s\n' "$namespace"
}

answers() {
  timeout 5 docker -H "unix://$run/docker.sock" version >/dev/null 2>&1
}

# alive NAME: the daemon whose process id is in NAME.pid runs.
alive() {
  local pid
  pid=$(cat "$run/$1.pid" 2>/dev/null) && [ -d "/proc/$pid" ]
}

# daemon NAME CMD...: runs it in the background, out of reach of the terminal's Ctrl-C, which would end it before its
# containers.
daemon() {
  local name=$1
  shift
  # shellcheck disable=SC2016 # The inner shell expands.
  in_namespace setsid --fork sh -c 'echo $$ >"$0"; exec "$@"' "$run/$name.pid" "$@" >>"$work/$name.log" 2>&1 </dev/null
  # The fork is not waited for: on a busy machine the file is written after this, and without it the daemon looks dead.
  local deadline=$((SECONDS + start_seconds_max))
  until [ -s "$run/$name.pid" ] || [ "$SECONDS" -ge "$deadline" ]; do sleep 0.05; done
}

# terminate NAME: TERM, then KILL when that takes too long.
terminate() {
  local name=$1 pid waited=0
  pid=$(cat "$run/$name.pid" 2>/dev/null) || return 0
  as_root kill -TERM "$pid" 2>/dev/null || true
  # A daemon that a test has stopped hears TERM only after it goes on.
  as_root kill -CONT "$pid" 2>/dev/null || true
  while [ -d "/proc/$pid" ]; do
    sleep 0.1
    waited=$((waited + 1))
    if [ "$waited" -eq $((stop_seconds_max * 10)) ]; then as_root kill -KILL "$pid" 2>/dev/null || true; fi
    [ "$waited" -lt $((stop_seconds_max * 10 + 50)) ] || die "$name (pid $pid) does not end"
  done
}

# Containers need cgroups. Where the system's start did not mount any, this does, and they stay.
mount_cgroups() {
  ! grep -qE ' cgroup2? ' /proc/mounts || return 0
  echo 'engine: mounting cgroups on /sys/fs/cgroup' >&2
  # A controller of hierarchy 0 is free for version 2.
  if grep -q cgroup2 /proc/filesystems && awk '$1 == "memory" && $2 == 0 { found = 1 } END { exit !found }' /proc/cgroups \
    && as_root mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null; then
    grep -qw memory /sys/fs/cgroup/cgroup.controllers && return 0
    as_root umount /sys/fs/cgroup
  fi
  as_root mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  local controller
  awk '!/^#/ && $4 == 1 { print $1 }' /proc/cgroups | while read -r controller; do
    as_root mkdir -p "/sys/fs/cgroup/$controller"
    as_root mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
  done
}

# overlay2 where the file system below carries it (another overlay does not), else vfs, which always works and copies.
storage_driver() {
  local probe=$data/probe driver=vfs
  as_root mkdir -p "$probe/lower" "$probe/upper" "$probe/work" "$probe/merged"
  if as_root mount -t overlay overlay "$probe/merged" \
    -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" 2>/dev/null; then
    as_root umount "$probe/merged"
    driver=overlay2
  fi
  as_root rm -rf "$probe"
  echo "$driver"
}

# The namespace of the engine whose `exec` runs this, or a new one.
enter_namespace() {
  if [ -n "${HEARTH_TEST_NETNS:-}" ] \
    && [ "net:[$(stat --dereference --format %i "/run/netns/$HEARTH_TEST_NETNS" 2>/dev/null)]" = "$(readlink /proc/self/ns/net)" ]; then
    namespace=$HEARTH_TEST_NETNS
  else
    namespace=$(basename "$run")
    as_root ip netns add "$namespace"
    in_namespace ip link set lo up
  fi
}

# routed PREFIX: some address of it has a route in the namespace.
routed() {
  { in_namespace ip -4 route show table all match "$1"; in_namespace ip -4 route show table all root "$1"; } | grep -qv '^default'
}

# Makes the bridge of the default network, on addresses that are free: those of the last time, for networks that were made then,
# or else from a random one on, so that two engines that start at once do not meet.
add_bridge() {
  local bridge second
  bridge=$(basename "$run")
  subnet=$(cat "$work/subnet" 2>/dev/null || true)
  if [ -z "$subnet" ] || routed "$subnet.0.0/16"; then
    second=$((RANDOM % 200))
    while routed "10.$second.0.0/16"; do second=$(((second + 1) % 256)); done
    subnet=10.$second
    echo "$subnet" >"$work/subnet"
  fi
  in_namespace ip link add name "$bridge" type bridge
  in_namespace ip address add "$subnet.0.1/24" dev "$bridge"
  in_namespace ip link set "$bridge" up
}

start_containerd() {
  as_root tee "$run/containerd.toml" >/dev/null <<TOML
version = 2
root = "$data/containerd"
state = "$run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$run/containerd.sock"
TOML
  daemon containerd containerd --config "$run/containerd.toml" --log-level warn
}

start_dockerd() {
  # An empty configuration of its own: that of the machine is for its engine.
  echo '{}' | as_root tee "$run/docker.json" >/dev/null
  daemon dockerd dockerd --config-file "$run/docker.json" --host "unix://$run/docker.sock" --group "$(id -gn)" \
    --containerd "$run/containerd.sock" --data-root "$data/docker" --exec-root "$run/docker" --pidfile "$run/docker.pid" \
    --storage-driver "$(storage_driver)" --log-level warn \
    --bridge "$(basename "$run")" --default-address-pool "base=$subnet.128.0/17,size=24"
  local deadline=$((SECONDS + start_seconds_max))
  until answers; do
    if [ "$SECONDS" -ge "$deadline" ] || ! alive dockerd || ! alive containerd; then
      tail -n 20 "$work/containerd.log" "$work/dockerd.log" >&2
      die "dockerd did not answer; the end of its log is above"
    fi
    sleep 0.1
  done
}

start() {
  [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null || die "a container engine needs root: run as root, or install sudo"
  local name
  for name in dockerd containerd docker ip nsenter; do
    command -v "$name" >/dev/null || die "no $name here; scripts/deps.sh test installs it"
  done
  ! load_state || die "$work has an engine already; scripts/engine.sh stop ends it"
  mkdir -p "$work"
  run=$(mktemp -d /tmp/hearth-XXXXXX)
  chmod 755 "$run"
  namespace='' subnet=''
  # Whatever fails from here on, what was made by then is taken back.
  trap stop EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  mount_cgroups
  enter_namespace
  add_bridge
  printf 'run=%s\nnamespace=%s\nsubnet=%s\n' "$run" "$namespace" "$subnet" >"$work/state"
  rm -f "$work"/*.log
  start_containerd
  start_dockerd
  ln -sf "$run/docker.sock" "$run/docker.pid" "$work"
  trap - EXIT INT TERM
  engine_env
}

# Ends containers at once; each would get ten seconds from a dockerd that is told to end.
kill_containers() {
  local containers
  containers=$(timeout 10 docker -H "unix://$run/docker.sock" ps -q || true)
  # shellcheck disable=SC2086 # One word for each container.
  [ -z "$containers" ] || timeout 60 docker -H "unix://$run/docker.sock" kill $containers >/dev/null 2>&1 || true
}

stop() {
  [ -n "${run:-}" ] || load_state || return 0
  local line pid
  ! pid=$(cat "$run/docker.pid" 2>/dev/null) || as_root kill -CONT "$pid" 2>/dev/null || true
  ! answers || kill_containers
  terminate dockerd
  # Processes that hold containers outlive a killed containerd; they name its socket on their command line.
  for pid in $(pgrep -f -- "-address $run/containerd.sock"); do as_root kill -KILL "$pid" 2>/dev/null || true; done
  terminate containerd
  # The innermost mounts come last in the list.
  awk -v run="$run/" -v data="$data/" 'index($2, run) == 1 || index($2, data) == 1 { print $2 }' /proc/mounts | tac \
    | while read -r line; do as_root umount -l "$line" || true; done
  if [ "$namespace" = "$(basename "$run")" ]; then
    # Bridges, addresses and firewall rules go with it.
    as_root ip netns del "$namespace"
  elif [ -n "$subnet" ]; then
    in_namespace ip -oneline -4 address show to "$subnet.0.0/16" | awk '{ print $2 }' \
      | while read -r line; do in_namespace ip link del "$line" || true; done
  fi
  as_root rm -rf "$run"
  rm -f "$work/state" "$work/docker.sock" "$work/docker.pid"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  remove)
    stop
    as_root rm -rf "$data" "$work/subnet" "$work"/*.log
    ;;
  env)
    load_state || die "no engine runs in $work; scripts/engine.sh start starts one"
    engine_env
    ;;
  exec)
    shift
    load_state || die "no engine runs in $work; scripts/engine.sh start starts one"
    cd "$OLDPWD"
    eval "$(engine_env)"
    # What starts with HEARTH_ is a setting to a node that inherits it.
    unset HEARTH_WORK
    # The environment goes along by hand: sudo drops it.
    mapfile -d '' -t environment < <(env -0)
    in_namespace env -i "${environment[@]}" "$@"
    ;;
  *)
    sed -n '/^# usage/,/^#$/s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
