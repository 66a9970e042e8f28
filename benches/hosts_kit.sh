#!/usr/bin/env bash
# Every training model of the kit over 2 and 4 worker processes of this machine: how far the first ten losses are from the
# references in f64 (at most 1e-4 is right), and the digest, which is that of as many threads of one process. Takes about five
# minutes on two cores. `benches/hosts_kit.sh [path of thalweg] [case ...]`
set -euo pipefail
cd "$(dirname "$0")/.."
thalweg=${1:-target/release/thalweg}
shift || true
cases=("$@")
[ ${#cases[@]} -gt 0 ] ||
    cases=(mlp_train mlp_small_train lenet_train gpt_train resnet18_cifar_train dp_mlp_train_p2 dp_resnet18_train_p2)
field() { python3 -c 'import json, sys; line = json.loads(sys.stdin.readlines()[-1]); print(*(line[k] for k in sys.argv[1:]))' "$@"; }
wrong=0
printf '%-22s %7s  %9s  %12s  %6s  %s\n' case workers error "bytes sent" "s" "digest of one process"
for case in "${cases[@]}"; do
    for n in 2 4; do
        devices=$(seq -s, -f 'cpu:%g' 0 $((n - 1)))
        started=$(date +%s.%N)
        read -r error sent digest < <("$thalweg" launch -n "$n" -- "$thalweg" kit --case "$case" --check --json | field rel_err bytes_sent digest)
        took=$(python3 -c "import time; print(f'{time.time() - $started:.1f}')")
        one=$("$thalweg" kit --case "$case" --devices "$devices" --check --json | field digest)
        same=yes
        [ "$one" = "$digest" ] || { same=NO; wrong=1; }
        printf '%-22s %7s  %9.1e  %12s  %6s  %s\n' "$case" "$n" "$error" "$sent" "$took" "$same"
    done
done
exit $wrong
