#!/usr/bin/env bash
# Everything there is to know of Thalweg on this machine's first GPU, in one go and in under nine minutes: its tests, what
# the adapter does, the training cases of the benchmark kit, the demo. Ends with a table.
#
#   benches/gpu.sh                 builds, then measures
#   benches/gpu.sh --pack FILE     builds, and packs what a machine without Rust and without network needs (some 20 MiB)
#   benches/gpu.sh --from FILE     measures with what was packed, there
#
# A machine without network but with Rust can build as well: `cargo vendor` where there is a network, its answer in
# `.cargo/config.toml`, and the folder carried along.
#
# Options: --limit SECONDS (all in all, building not included; 520), --device NAME (gpu:0).
# Every step has a limit of its own, and what there is no time for is named. Software adapters are given what they can do.
set -uo pipefail
cd "$(dirname "$0")/.."

limit=520 device=gpu:0 pack="" from=""
while [ $# -gt 0 ]; do
  case "$1" in
    --limit) limit=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    --from) from=$2; shift 2 ;;
    *) sed -n '2,14p' "$0" >&2; exit 2 ;;
  esac
done
suites=(thalweg-gpu:adapters thalweg-gpu:kernels thalweg-gpu:laws thalweg-gpu:steps thalweg:gpu thalweg:gpu_steps)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

if [ -n "$from" ]; then
  tar -C "$work" -xf "$from" || { echo "$from cannot be unpacked" >&2; exit 1; }
else
  started=$SECONDS
  # The build is that of `cargo test --workspace`, command and all, so that neither is built twice. What tests are called is
  # only said in JSON; other crates have tests of the same names.
  names=(); for suite in "${suites[@]}"; do names+=(--test "${suite#*:}"); done
  cargo test --release --locked --workspace --no-run --message-format=json "${names[@]}" >"$work/built" || exit 1
  for suite in "${suites[@]}"; do
    folder="$PWD"; [ "${suite%:*}" = thalweg ] || folder="$PWD/runtime/gpu"
    built=$(grep -F "\"manifest_path\":\"$folder/Cargo.toml\"" "$work/built" |
      grep -o '"executable":"[^"]*/'"${suite#*:}"'-[0-9a-f]*"' | tail -1 | cut -d'"' -f4)
    [ -n "$built" ] || { echo "no test ${suite#*:} was built" >&2; exit 1; }
    cp "$built" "$work/${suite#*:}.test"
  done
  cp "${CARGO_TARGET_DIR:-target}/release/thalweg" "$work/thalweg"
  echo "built in $((SECONDS - started)) s" >&2
fi
if [ -n "$pack" ]; then
  strip "$work"/*.test "$work/thalweg"
  tar -C "$work" --exclude built -czf "$pack" . && du -h "$pack" && exit
  exit 1
fi

thalweg="$work/thalweg"
rows=()
row() { rows+=("$(printf '%-34s %8s  %s' "$1" "$2" "$3")"); }
deadline=$((SECONDS + limit))

# measured NAME MOST COMMAND...: runs it for at most MOST seconds, and no longer than there is time; its output goes to $out.
measured() {
  local name=$1 most=$2 left=$((deadline - SECONDS)) began ended status
  shift 2
  if [ "$left" -lt 5 ]; then
    row "$name" - "skipped: no time left"
    return 1
  fi
  [ "$most" -lt "$left" ] || most=$left
  began=$(date +%s%N)
  out=$(timeout "$most" "$@" 2>"$work/stderr")
  status=$?
  ended=$(date +%s%N)
  took="$(((ended - began) / 1000000)) ms"
  case $status in
    0) return 0 ;;
    124) row "$name" "$took" "stopped after $most s" ;;
    *) row "$name" "$took" "FAILED: $( (echo "$out"; cat "$work/stderr") | grep -v '^$' | tail -1 | cut -c1-160)"
       failures=$((failures + 1)) ;;
  esac
  return 1
}

described=$("$thalweg" devices --json | grep "\"name\":\"$device\"")
if [ -z "$described" ]; then
  echo "there is no $device here; there is:" >&2
  "$thalweg" devices >&2
  exit 1
fi
field() { grep -o "\"$1\":\"[^\"]*\"" <<<"$described" | head -1 | cut -d'"' -f4; }
kind=$(field kind)
echo "$device: $(field adapter) ($kind, $(field driver)), $(nproc) cores, $(uname -sm)"

measured "start: --version" 20 "$thalweg" --version && row "start: --version" "$took" "$out"
measured "start: devices" 60 "$thalweg" devices && row "start: devices" "$took" "$(grep -c '^gpu' <<<"$out") adapter(s)"
measured "devices --measure" 60 "$thalweg" devices --measure &&
  row "devices --measure" "$took" "$(grep -A3 "^$device" <<<"$out" | sed -n 's/^ *measured *//p')"

for suite in "${suites[@]}"; do
  name=${suite#*:}
  THALWEG_REQUIRE=vulkan measured "tests: $name" 120 "$work/$name.test" &&
    row "tests: $name" "$took" "$(sed -n 's/^test result: //p' <<<"$out" | tail -1 | cut -d';' -f1-2)"
done

cases=(mlp_small_train lenet_train mlp_train resnet18_cifar_train gpt_train tiny_ops elementwise_fused matmul_2048)
for name in "${cases[@]}"; do
  if [ "$kind" = software ]; then
    case $name in
      mlp_small_train | tiny_ops) ;;
      *) row "kit: $name" - "skipped: software takes too long"; continue ;;
    esac
  fi
  measured "kit: $name" 60 "$thalweg" kit --case "$name" --device "$device" --reps 5 && row "kit: $name" "$took" "${out#*: }"
done

passes=30
[ "$kind" != software ] || passes=1
measured "demo, $passes pass(es)" 120 "$thalweg" demo --device "$device" --passes "$passes" --json &&
  row "demo, $passes pass(es)" "$took" "$(tail -1 <<<"$out" | cut -c1-120)"
measured "demo on the CPU, $passes pass(es)" 120 "$thalweg" demo --passes "$passes" --json &&
  row "demo on the CPU, $passes pass(es)" "$took" "$(tail -1 <<<"$out" | cut -c1-120)"

printf '\n%-34s %8s  %s\n' step took result
printf '%s\n' "${rows[@]}"
echo "$((SECONDS - deadline + limit)) s in all, $failures failed"
exit $((failures > 0))
