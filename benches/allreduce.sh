#!/usr/bin/env bash
# All-reduce over processes of this machine, beside a null replay of the same plan (the same hops, bytes, sockets and processes,
# no addition and no checksum), Gloo and Open MPI over TCP: all in one run, in turn, several times over; medians of each run's
# median. Nothing else should be running: peers that wait by spinning lose most where something does.
#
#   benches/allreduce.sh [PROCESSES...]       2 and 4 unless some are named
#
# Peers take part if KIT names the folder of the benchmark kit (`dist_mpi.py`, `bench_torch.py`): GLOO_PYTHON is a Python that
# has torch, MPI_PYTHON one that has mpi4py (its folder has `mpirun`). ROUNDS says how often, and REPS how many repeats each.
set -uo pipefail
cd "$(dirname "$0")/.."

worlds=("$@")
[ $# -gt 0 ] || worlds=(2 4)
cargo build --release --locked --quiet --no-default-features || exit 1
thalweg="${CARGO_TARGET_DIR:-target}/release/thalweg"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PYTHONDONTWRITEBYTECODE=1

peers() {
  [ -n "${KIT:-}" ] || return 0
  [ -z "${MPI_PYTHON:-}" ] || PATH="$(dirname "$MPI_PYTHON"):$PATH" "$MPI_PYTHON" "$KIT/dist_mpi.py" --mode tcp "$@"
  [ -z "${GLOO_PYTHON:-}" ] || "$GLOO_PYTHON" "$KIT/bench_torch.py" "$@"
}
for world in "${worlds[@]}"; do
  for _ in $(seq "${ROUNDS:-3}"); do
    how=(--case allreduce --procs "$world" --reps "${REPS:-5}" --json)
    "$thalweg" kit "${how[@]}" || exit 1
    "$thalweg" kit "${how[@]}" --null || exit 1
    peers "${how[@]}" 2>/dev/null
  done
done | awk '
  function field(name) { return match($0, "\"" name "\": *\"?[^,\"}]*") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : "" }
  function clean(text) { gsub(/[" ]/, "", text); return text }
  { name = clean(field("case")); who = clean(field("framework")) "/" clean(field("mode")); key = name SUBSEP who
    if (name == "") next
    if (!(name in seen)) { seen[name] = 1; order[++cases] = name }
    took[key] = took[key] " " clean(field("median_s")); bus[key] = 1 }
  function median(list,   a, n, i, j, t) {
    n = split(list, a, " "); for (i = 2; i <= n; i++) for (j = i; j > 1 && a[j] + 0 < a[j - 1] + 0; j--) { t = a[j]; a[j] = a[j - 1]; a[j - 1] = t }
    return n ? (a[int((n + 1) / 2)] + a[int(n / 2) + 1]) / 2 : 0 }
  END {
    printf "%-26s %10s %10s %10s %10s   %9s %9s %9s\n", "milliseconds", "thalweg", "null", "mpi/tcp", "gloo", "busbw", "of null", "of peers"
    for (i = 1; i <= cases; i++) {
      n = order[i]; split(n, part, "_"); p = substr(part[3], 2)
      own = median(took[n, "thalweg/plan"]); null = median(took[n, "thalweg/null"]); mpi = median(took[n, "mpi/tcp"]); gloo = median(took[n, "torch/gloo"])
      best = mpi && (!gloo || mpi < gloo) ? mpi : gloo
      printf "%-26s %10.4f %10.4f %10.4f %10.4f   %9.3f %8.0f%% %8.0f%%\n", n, 1e3 * own, 1e3 * null, 1e3 * mpi, 1e3 * gloo, part[2] / own / 1e9 * 2 * (p - 1) / p, 100 * null / own, best ? 100 * best / own : 0
    }
  }'
