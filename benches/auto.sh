#!/usr/bin/env bash
# Whether what `--strategy auto` chooses for two devices of one core each is within a tenth of the best that can be said by hand,
# measured: every strategy in turn, several times over, the shortest step of each. Nothing else should be running.
#
#   benches/auto.sh [CASE...]        cases of the kit; a perceptron, LeNet and the small GPT unless some are named
#
# `thalweg devices --measure` comes first, if it was never run: a choice is as good as the rates it is made by.
set -uo pipefail
cd "$(dirname "$0")/.."

cases=("$@")
[ $# -gt 0 ] || cases=(mlp_train lenet_train gpt_train)
cargo build --release --locked --quiet || exit 1
thalweg="${CARGO_TARGET_DIR:-target}/release/thalweg"
"$thalweg" devices --json | grep -q '"measured_one_thread":{' || "$thalweg" devices --measure >/dev/null || exit 1

two="--devices cpu:0,cpu:1"
manual=("--threads 1" "$two --strategy dp" "$two --strategy zero1")
for count in 2 4 8; do manual+=("$two --strategy pp --microbatches $count"); done
missed=0
for case in "${cases[@]}"; do
  declare -A best=()
  for _ in 1 2 3 4 5; do
    for how in "${manual[@]}" "$two --strategy auto"; do
      # shellcheck disable=SC2086 # several words
      took=$("$thalweg" kit --case "$case" $how --losses 1 --reps 3 --json | grep -o '"min_s":[0-9.e-]*' | cut -d: -f2)
      [ -n "$took" ] || continue
      best[$how]=$(printf '%s\n' "$took" "${best[$how]:-$took}" | sort -g | head -1)
    done
  done
  printf '%s, milliseconds a step\n' "$case"
  for how in "${!best[@]}"; do printf '  %9.3f  %s\n' "$(echo "${best[$how]}" | awk '{print 1000 * $1}')" "$how"; done | sort -n
  least=$(for how in "${manual[@]}"; do echo "${best[$how]:-inf}"; done | sort -g | head -1)
  awk -v a="${best[$two --strategy auto]}" -v b="$least" 'BEGIN { printf "  auto takes %.3f of the best\n", a / b; exit !(a <= 1.1 * b) }' || missed=1
done
exit $missed
