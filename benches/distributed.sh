#!/usr/bin/env bash
# Data parallel and parameter server training over processes of this machine, beside PyTorch's DistributedDataParallel and
# MXNet's key-value store, in turn within one run: rounds of all, and the median of each. Beside every figure stands what as
# many copies without communication take that run at the same time; what is more than that is exposed communication.
#
#   benches/distributed.sh [ROUNDS] [MODEL...]     three rounds; mlp and resnet18 unless some are named
#   PEERS=FOLDER benches/distributed.sh            with the peers of the kit in that folder, whose `setup.sh` has been run
#   WORKERS="1 2"                                  how many workers
#
# A parameter server is one process more than there are workers. Nothing else should be running.
set -uo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
shift || true
models=("$@")
[ ${#models[@]} -gt 0 ] || models=(mlp resnet18)
peers=${PEERS:-}
thalweg=${THALWEG:-target/release/thalweg}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

alone() { case $1 in mlp) echo mlp_train ;; resnet18) echo resnet18_cifar_train ;; *) echo "$1_train" ;; esac; }

# note NAME COMMAND...: appends the last line of JSON that a command prints.
note() {
    local name=$1
    shift
    "$@" 2>>"$out/stderr" | grep '^{' | tail -n 1 >>"$out/$name" || true
}
# copies NAME W COMMAND...: so many at the same time, a core each while there are enough; all of them are noted.
copies() {
    local name=$1 count=$2 pids=()
    shift 2
    for ((i = 0; i < count; i++)); do
        note "$name.$i" taskset -c $((i % $(nproc))) "$@" &
        pids+=($!)
    done
    wait "${pids[@]}"
    cat "$out/$name".[0-9]* >>"$out/$name" 2>/dev/null
    rm -f "$out/$name".[0-9]*
}

for ((round = 1; round <= rounds; round++)); do
    for model in "${models[@]}"; do
        for w in ${WORKERS:-1 2}; do
            echo "round $round: $model, $w workers" >&2
            for kind in dp ps; do
                note "$model $w thalweg $kind" "$thalweg" kit --case "${kind}_${model}_train" --procs "$w" --json --reps 3
            done
            copies "$model $w thalweg copies" "$w" "$thalweg" kit --case "$(alone "$model")" --json --reps 3
            [ -n "$peers" ] || continue
            torch="$peers/venv/bin/python $peers/bench_torch.py"
            mxnet="$peers/venv_mx/bin/python $peers/bench_mxnet.py"
            note "$model $w torch dp" $torch --case "dp_${model}_train" --procs "$w" --json --reps 3
            # One process of the distributed script does not communicate.
            copies "$model $w torch copies" "$w" $torch --case "dp_${model}_train" --procs 1 --json --reps 3
            note "$model $w mxnet ps" $mxnet --case "ps_${model}_train" --procs "$w" --json --reps 3
        done
    done
done

python3 - "$out" <<'PYTHON'
import json, os, statistics, sys

rows = {}
for name in os.listdir(sys.argv[1]):
    if name == "stderr":
        continue
    lines = [json.loads(line) for line in open(os.path.join(sys.argv[1], name)) if line.strip()]
    if lines:
        errors = [l["extra"]["rel_err"] for l in lines if l["extra"].get("rel_err") is not None]
        rows[tuple(name.split())] = (1e3 * statistics.median(l["median_s"] for l in lines), max(errors, default=None),
                                     statistics.median(l["items_per_s"] for l in lines), len(lines))
print("| model | workers | system | ms a step | co-running copies, ms | exposed, ms | samples/s | runs | error |")
print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
for key in sorted(rows):
    model, workers, system, kind = key
    if kind == "copies":
        continue
    step, error, rate, runs = rows[key]
    beside = rows.get((model, workers, system, "copies"))
    copies, exposed = (f"{beside[0]:.2f}", f"{step - beside[0]:.2f}") if beside else ("-", "-")
    error = "-" if error is None else f"{error:.1e}"
    print(f"| {model} | {workers} | {system} {kind} | {step:.2f} | {copies} | {exposed} | {rate:.0f} | {runs} | {error} |")
PYTHON
[ ! -s "$out/stderr" ] || grep -v Warning "$out/stderr" | tail -n 5 >&2
