#!/usr/bin/env bash
# Shows what Hearth is: three nodes on one etcd, a function that every node answers for and that stays warm on one of them,
# and what a caller notices when that node is killed. Everything it starts is its own, on free ports, and is stopped at the end.
#
# usage: scripts/demo.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# Settings of the caller's own nodes are not for these.
unset "${!HEARTH_@}"

hearth=${CARGO_TARGET_DIR:-target}/debug/hearth
hello=$PWD/target/examples/bin/hello
nodes=(n1 n2 n3)
declare -A functions_port config_port peer_port pid
etcd_pid=
dir=

bold=''
plain=''
if [ -t 1 ]; then
  bold=$'\033[1m'
  plain=$'\033[0m'
fi

step() {
  printf '\n%s== %s%s\n' "$bold" "$*" "$plain"
}

die() {
  printf 'demo: %s\n' "$*" >&2
  local node
  for node in "${nodes[@]}"; do
    [ ! -s "$dir/$node.log" ] || { printf -- '-- the end of the log of %s\n' "$node"; tail -n 8 "$dir/$node.log"; } >&2
  done
  exit 1
}

# Ends what is still running: nodes first, which stop their instances, then etcd.
cleanup() {
  trap '' INT TERM
  local left=("${pid[@]}") deadline=$((SECONDS + 10)) process
  [ ${#left[@]} -eq 0 ] || kill -TERM "${left[@]}" 2>/dev/null || true
  for process in "${left[@]}"; do
    while kill -0 "$process" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
    kill -KILL "$process" 2>/dev/null || true
  done
  [ -z "$etcd_pid" ] || kill -KILL "$etcd_pid" 2>/dev/null || true
  # The shell's own report of a killed child would be noise.
  wait 2>/dev/null || true
  [ -z "$dir" ] || rm -rf "$dir"
}

# until_true SECONDS CMD...: runs it until it succeeds.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.05
  done
}

# Ports that nothing listens on, below the range from which the kernel takes ports for outgoing connections.
taken=" "
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    case $taken in *" $port "*) continue ;; esac
    grep -qi ":$(printf '%04X' "$port") " /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 2>/dev/null || break
  done
  taken+="$port "
  REPLY=$port
}

get() {
  curl --silent --fail --max-time 5 "$@"
}

start_etcd() {
  local client peer
  free_port && client=$REPLY
  free_port && peer=$REPLY
  etcd_url=http://127.0.0.1:$client
  etcd --name demo --data-dir "$dir/etcd" --listen-client-urls "$etcd_url" --advertise-client-urls "$etcd_url" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "demo=http://127.0.0.1:$peer" >"$dir/etcd.log" 2>&1 &
  etcd_pid=$!
  until_true 15 get "$etcd_url/health" || { tail -n 8 "$dir/etcd.log" >&2; die "etcd did not start"; }
  echo "etcd   $etcd_url"
}

start_node() {
  local node=$1 events
  free_port && functions_port[$node]=$REPLY
  free_port && config_port[$node]=$REPLY
  free_port && events=$REPLY
  free_port && peer_port[$node]=$REPLY
  # The function of this demo is a process, so that no container engine is needed, and one that is there is left alone.
  "$hearth" node --name "$node" --data-dir "$dir/$node" --etcd "$etcd_url" --seed "127.0.0.1:${peer_port[n1]}" \
    --cluster-secret-file "$dir/secret" --functions-listen "127.0.0.1:${functions_port[$node]}" \
    --events-listen "127.0.0.1:$events" --config-listen "127.0.0.1:${config_port[$node]}" \
    --peer-listen "127.0.0.1:${peer_port[$node]}" --docker-host "unix://$dir/none.sock" --allow-process \
    >"$dir/$node.log" 2>&1 &
  pid[$node]=$!
  disown
}

sees_all() {
  local cluster node
  cluster=$(get "http://127.0.0.1:${config_port[$1]}/v1/cluster")
  for node in "${nodes[@]}"; do [[ $cluster == *"\"$node\""* ]] || return 1; done
}

header() {
  sed -n "s/^$1: *\([^\r]*\)\r*$/\1/Ip" "$dir/head" | tail -n 1
}

# invoke NODE NAME: calls the function through a node and prints the answer in a line. REPLY is the node where it ran.
invoke() {
  local node=$1 status seconds result
  read -r status seconds < <(
    curl --silent --max-time 20 --dump-header "$dir/head" --output "$dir/body" --write-out '%{http_code} %{time_total}\n' \
      --header 'content-type: application/json' --data "{\"function_name\":\"hello\",\"payload\":{\"name\":\"$2\"}}" \
      "http://127.0.0.1:${functions_port[$node]}/invoke" || true
  )
  result=$(sed 's/^{"message":"Function invoked successfully","result":\(.*\)}$/\1/' "$dir/body")
  REPLY=$(header x-hearth-node)
  printf 'through %s: %s %s   ran on %s (%s, %s) in %d ms\n' "$node" "$status" "$result" "$REPLY" \
    "$(header x-hearth-start)" "$(header x-hearth-route)" "$(awk -v s="$seconds" 'BEGIN { print int(s * 1000 + 0.5) }')"
  [ "$status" = 200 ]
}

scripts/deps.sh build demo
step "Building"
cargo build --workspace --bin hearth
scripts/examples.sh hello
built=$SECONDS

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
dir=$(mktemp -d /tmp/hearth-demo-XXXXXX)
head -c 32 /dev/urandom | base64 >"$dir/secret"

step "Starting etcd and the nodes ${nodes[*]}"
start_etcd
for node in "${nodes[@]}"; do start_node "$node"; done
for node in "${nodes[@]}"; do
  until_true 15 get "http://127.0.0.1:${config_port[$node]}/v1/ready" || die "$node did not become ready"
  until_true 15 sees_all "$node" || die "$node does not see all of ${nodes[*]}"
  echo "$node     http://127.0.0.1:${functions_port[$node]}/invoke   pid ${pid[$node]}, sees ${nodes[*]}"
done

step "Registering the function hello through n1: a local command (a container image works the same way)"
record="{\"functionId\":\"hello\",\"type\":\"process\",\"provider\":{\"command\":[\"$hello\"],\"env\":{\"HOST\":\"127.0.0.1\"}},\"limits\":{\"concurrency\":16}}"
echo "$record"
curl --silent --show-error --fail-with-body --max-time 10 --output "$dir/body" --header 'content-type: application/json' \
  --data "$record" "http://127.0.0.1:${config_port[n1]}/v1/spaces/default/functions" || die "n1 refused it: $(cat "$dir/body")"
for node in "${nodes[@]}"; do
  until_true 5 get "http://127.0.0.1:${config_port[$node]}/v1/spaces/default/functions/hello" || die "$node does not know it"
done

step "Calling it through n1: the first call starts an instance"
invoke n1 Ada || die "the call failed"

# Nodes tell each other what is warm five times a second.
sleep 1
step "Calling it through every node: it runs where it is warm"
for node in "${nodes[@]}" "${nodes[@]}"; do invoke "$node" Ada || die "the call failed"; done
warm=$REPLY
[ -n "${pid[$warm]:-}" ] || die "the answer names no node of this cluster: '$warm'"

step "Killing $warm, where it is warm: kill -9 ${pid[$warm]}"
killed=$(date +%s%N)
kill -KILL "${pid[$warm]}"
unset "pid[$warm]"
others=()
for node in "${nodes[@]}"; do [ "$node" = "$warm" ] || others+=("$node"); done

step "Going on at once, through ${others[*]}"
deadline=$((SECONDS + 10))
until invoke "${others[0]}" Grace; do
  [ "$SECONDS" -lt "$deadline" ] || die "no success within 10 s of the kill"
done
echo "that answer came $((($(date +%s%N) - killed) / 1000000)) ms after the kill"
for node in "${others[1]}" "${others[@]}"; do invoke "$node" Grace || die "the call failed"; done

step "Stopping all of it"
cleanup
dir=
pid=()
etcd_pid=
echo "nothing is left running; this took $((SECONDS - built)) s after the build"

step "The same by hand, a terminal for each of the first four"
cat <<BYHAND
mkdir -p /tmp/hearth && head -c 32 /dev/urandom | base64 > /tmp/hearth/secret
etcd --data-dir /tmp/hearth/etcd
$hearth node --name n1 --data-dir /tmp/hearth/n1 --etcd http://127.0.0.1:2379 --cluster-secret-file /tmp/hearth/secret --allow-process
$hearth node --name n2 --data-dir /tmp/hearth/n2 --etcd http://127.0.0.1:2379 --cluster-secret-file /tmp/hearth/secret --allow-process --seed 127.0.0.1:7400 \\
  --functions-listen 127.0.0.1:3010 --events-listen 127.0.0.1:4010 --config-listen 127.0.0.1:4011 --peer-listen 127.0.0.1:7410
$hearth node --name n3 --data-dir /tmp/hearth/n3 --etcd http://127.0.0.1:2379 --cluster-secret-file /tmp/hearth/secret --allow-process --seed 127.0.0.1:7400 \\
  --functions-listen 127.0.0.1:3020 --events-listen 127.0.0.1:4020 --config-listen 127.0.0.1:4021 --peer-listen 127.0.0.1:7420

curl 127.0.0.1:4001/v1/spaces/default/functions -H 'content-type: application/json' -d '$record'
curl -i 127.0.0.1:3010/invoke -H 'content-type: application/json' -d '{"function_name":"hello","payload":{"name":"Ada"}}'
BYHAND
cat <<'BYHAND'
pkill -9 -f 'hearth node --name n1'       # or the node that x-hearth-node named
curl -i 127.0.0.1:3020/invoke -H 'content-type: application/json' -d '{"function_name":"hello","payload":{"name":"Ada"}}'
BYHAND
