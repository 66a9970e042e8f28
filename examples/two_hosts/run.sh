#!/usr/bin/env bash
# Two hosts on one machine: network namespaces that are joined by a cable, which is pulled while a job trains over it.
#
#   sudo examples/two_hosts/run.sh [THALWEG]       # target/release/thalweg, unless another one is named
#
# Host A has the driver and a worker; a worker of host B joins it with the job's key, over TLS. Then the same with a cable that is
# pulled for six seconds: that is noticed, nobody goes on alone, and once it is back the job goes on with both. Both times the
# digest is that of one process. On real hosts the two commands below are all there is to it; copy the key with scp.
set -euo pipefail
cd "$(dirname "$0")/../.."

thalweg=$(realpath "${1:-target/release/thalweg}")
a=thalweg-a-$$ b=thalweg-b-$$
folder=$(mktemp -d)
finish() {
  # shellcheck disable=SC2046 # one word per process
  kill $(jobs -p) 2>/dev/null || true
  for host in "$a" "$b"; do ip netns pids "$host" | xargs -r kill; done 2>/dev/null || true
  wait 2>/dev/null || true
  ip netns del "$a" 2>/dev/null || true
  ip netns del "$b" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

ip netns add "$a"
ip netns add "$b"
ip link add twa$$ netns "$a" type veth peer name twb$$ netns "$b"
ip -n "$a" addr add 10.77.0.1/24 dev twa$$
ip -n "$b" addr add 10.77.0.2/24 dev twb$$
for host in "$a" "$b"; do ip -n "$host" link set lo up; done
ip -n "$a" link set twa$$ up
ip -n "$b" link set twb$$ up
key=$folder/key
(umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$key")

# Starts a job over both hosts; its outputs lie in the folder.
job() {
  local name=$1 steps=$2
  # On host A:
  ip netns exec "$a" "$thalweg" launch -n 1 --elsewhere 1 --listen 10.77.0.1:7700 --key "$key" -- \
    thalweg demo --json --leaves 4 --steps "$steps" >"$folder/$name.out" 2>"$folder/$name.err" &
  driver=$!
  # On host B, which may be there first:
  (
    for _ in $(seq 50); do
      ip netns exec "$b" "$thalweg" worker --join 10.77.0.1:7700 --key "$key" 2>"$folder/$name.b.err" && break
      grep -q "cannot join" "$folder/$name.b.err" || break
      sleep 0.2
    done
  ) &
}
digest() { tail -1 "$1" | grep -o '"digest":"[0-9a-f]*"'; }
alone() { "$thalweg" demo --json --leaves 4 --steps "$1" >"$folder/alone.out" && digest "$folder/alone.out"; }
fail() {
  echo "$*"
  cat "$folder"/*.err
  exit 1
}
# Seconds until a line is there, at most so many.
await() {
  local line=$1 file=$2 most=$3 since=${EPOCHREALTIME/./} took
  until grep -q "$line" "$file"; do
    took=$((${EPOCHREALTIME/./} - since))
    [ "$took" -lt $((most * 1000000)) ] || fail "no \"$line\" within $most s"
    sleep 0.02
  done
  took=$((${EPOCHREALTIME/./} - since))
  printf '%d.%02d' $((took / 1000000)) $((took / 10000 % 100))
}

job whole 200
wait "$driver" || fail "the job over both hosts failed"
[ "$(digest "$folder/whole.out")" = "$(alone 200)" ] || fail "another digest than one process"
echo "two hosts: the digest of one process"

job pulled 3000
await '"pass":1,' "$folder/pulled.out" 60 >/dev/null
ip -n "$b" link set twb$$ down
echo "partition: seen after $(await 'calling the workers together' "$folder/pulled.err" 10) s"
sleep 3
! grep -q 'going on with' "$folder/pulled.err" || fail "somebody went on alone"
ip -n "$b" link set twb$$ up
echo "partition: healed, both go on after $(await 'going on with 2 workers' "$folder/pulled.err" 30) s"
wait "$driver" || fail "the job did not end in peace"
[ "$(digest "$folder/pulled.out")" = "$(alone 3000)" ] || fail "another digest than one process"
echo "partition: the digest of one process"
