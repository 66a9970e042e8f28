#!/usr/bin/env bash
# Shows that tests of faults notice faults: runs them on a build as it should be, where each has to pass, and on the same build
# without fsyncs, without timeouts and without checksums, where those named here have to fail, each with the words by which it
# says what it missed. Fails if a test passes that should not, or fails for another reason.
#
#     .ci/broken.sh
#
# The build has the feature `broken` (runtime/src/broken.rs). It is removed at the end: nobody is to use it.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0
unset THALWEG_BROKEN

# left out | file of tests | test | what it then says
rows=(
  "fsync|checkpoint_faults|everything_is_synced_before_the_next_thing_relies_on_it|no fsync tmp-"
  "fsync|hosts_faults|whatever_a_job_publishes_is_synced_first_and_named_for_good|is published, and its bytes are not synced"
  "timeout|hosts|a_stopped_worker_is_noticed_and_replaced|are left after 45s"
  "timeout|two_hosts|a_job_over_two_hosts_survives_a_partition|no \"calling the workers together\" within 10 s"
  "checksum|checkpoint_damage|every_flipped_bit_is_found_and_the_checkpoint_before_is_loaded|and this build reads version|was turned and not found"
  "checksum|hosts|workers_save_what_they_hold|assertion .* failed: byte [0-9]+ of "
  "checksum|hosts_faults|a_bit_that_turns_on_its_way_is_noticed|has gone into the numbers|nobody has named it"
)
# Longer than any of them takes to fail.
most=90

log=$(mktemp)
run() { cargo test --release --locked --no-default-features --features broken "$@"; }
folder=${CARGO_TARGET_DIR:-target}
trap 'rm -f "$log" "$folder/release/thalweg"' EXIT

files=()
for row in "${rows[@]}"; do files+=(--test "$(cut -d'|' -f2 <<<"$row")"); done
run "${files[@]}" --no-run --quiet

# How a test ends: passed, failed, skipped, hung, or none where there is no such test.
outcome() {
  local broken=$1 file=$2 test=$3
  THALWEG_BROKEN=$broken timeout -k 5 "$most" \
    cargo test --release --locked --no-default-features --features broken --quiet --test "$file" -- --exact "$test" --nocapture >"$log" 2>&1 ||
    [ $? -lt 124 ] || { echo hung && return; }
  if grep -q "^skipped: " "$log"; then
    echo skipped
  elif grep -q "^test result: ok. 1 passed" "$log"; then
    echo passed
  elif grep -q "^test result: FAILED. 0 passed; 1 failed" "$log"; then
    echo failed
  else
    echo none
  fi
}

bad=0 began=$SECONDS
complain() {
  echo "$*"
  tail -30 "$log"
  bad=1
}
line() { printf '%-9s %-18s %-64s %-8s %s\n' "$@"; }

line "left out" "file" "test" "whole" "broken"
for row in "${rows[@]}"; do
  IFS='|' read -r broken file test says <<<"$row"
  whole=$(outcome "" "$file" "$test")
  [ "$whole" = passed ] || [ "$whole" = skipped ] || complain "$test: $whole, and should pass where nothing is left out"
  if [ "$whole" = skipped ]; then
    line "$broken" "$file" "$test" "$whole" "not tried"
    continue
  fi
  without=$(outcome "$broken" "$file" "$test")
  line "$broken" "$file" "$test" "$whole" "$without: $(grep -E -m1 -o "$says" "$log" || echo "something else")"
  if [ "$without" != failed ]; then
    complain "$test: $without, and should fail without ${broken}s"
  elif ! grep -E -q "$says" "$log"; then
    complain "$test: fails without ${broken}s for another reason than: $says"
  fi
done

# A name that is not known must not pass for a build that is whole.
if THALWEG_BROKEN=fsinc "$folder/release/thalweg" launch -n 1 -- thalweg devices >"$log" 2>&1 || ! grep -q "should be fsync, timeout or checksum" "$log"; then
  complain "THALWEG_BROKEN=fsinc is taken for something"
fi
echo "took $((SECONDS - began)) s"
exit $bad
