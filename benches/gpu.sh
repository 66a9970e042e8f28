#!/usr/bin/env bash
# Everything there is to know of Thalweg on this machine's first GPU, in one go and in under nine minutes: what the adapter
# does; products, memory-bound nests and a GPT of 124 M parameters beside PyTorch on the same card, where there is one, with
# where the time of a step goes; the cases of the benchmark kit, the demo, the tests. Ends with tables.
#
#   benches/gpu.sh                 builds, then measures
#   benches/gpu.sh --pack FILE     builds, and packs what a machine without Rust and without network needs (some 20 MiB)
#   benches/gpu.sh --from FILE     measures with what was packed, there
#
# A machine without network but with Rust can build as well: `cargo vendor` where there is a network, its answer in
# `.cargo/config.toml`, and the folder carried along.
#
# Options: --limit SECONDS (all in all, building not included; 520), --device NAME (gpu:0), --tiny (products, nests and the GPT
# in sizes that software can do, PyTorch on the CPU where it sees no card: tries the way, and says nothing of any card).
# PyTorch is that of `python3`, or of what PYTHON names. Every step has a limit of its own, the most wanted come first, and
# what there is no time for is named. Software adapters are given what they can do.
set -uo pipefail
cd "$(dirname "$0")/.."

limit=520 device=gpu:0 pack="" from="" tiny=""
while [ $# -gt 0 ]; do
  case "$1" in
    --limit) limit=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    --tiny) tiny=yes; shift ;;
    --from) from=$2; shift 2 ;;
    *) sed -n '2,17p' "$0" >&2; exit 2 ;;
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
  cp benches/gpu_torch.py "$work/"
  echo "built in $((SECONDS - started)) s" >&2
fi
if [ -n "$pack" ]; then
  strip "$work"/*.test "$work/thalweg"
  tar -C "$work" --exclude built -czf "$pack" . && du -h "$pack" && exit
  exit 1
fi

thalweg="$work/thalweg"
rows=()
# A row of the first table; on stderr at once, so that what is known stays known if somebody stops this.
row() {
  rows+=("$(printf '%-42s %10s  %s' "$1" "$2" "$3")")
  echo "${rows[${#rows[@]} - 1]}" >&2
}
deadline=$((SECONDS + limit))

# measured NAME MOST COMMAND...: runs it for at most MOST seconds, and no longer than there is time; its output goes to $out.
measured() {
  local name=$1 most=$2 left=$((deadline - SECONDS)) began ended status
  shift 2
  # What the step before said is not this one's.
  out="" && : >"$work/stderr"
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
    *) local verdict=FAILED
       # It is no failure that something is too large for this card.
       if grep -q 'there is no room' "$work/stderr"; then verdict="does not fit"; else failures=$((failures + 1)); fi
       row "$name" "$took" "$verdict: $( (echo "$out"; cat "$work/stderr") | grep -v '^$' | tail -1 | cut -c1-160)" ;;
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

# number KEY LINE: a number of a line of JSON. calc FORMAT EXPRESSION: arithmetic on floats.
number() { grep -o "\"$1\": *[0-9.eE+-]*" <<<"$2" | head -1 | sed 's/.*: *//'; }
text() { grep -o "\"$1\": *\"[^\"]*\"" <<<"$2" | head -1 | cut -d'"' -f4; }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }

# What both were measured to do, by case: items per second, and losses.
declare -A ours theirs losses
compared=()
# compare NAME OURS THEIRS SCALE UNIT WANTED: a row of the second table. SCALE brings rates into UNIT; WANTED is the ratio the
# project asks of itself, in percent, or nothing.
compare() {
  local verdict="" ratio line
  if [ -z "$2" ] || [ -z "$3" ]; then
    line="$([ -n "$2" ] && calc %.4g "$2 * $4" || echo -) $5; nothing to compare"
    [ -z "$6" ] || line="$line (wanted: $6 %)"
  else
    ratio=$(calc %.1f "100 * $2 / $3")
    [ -z "$6" ] || verdict=", wanted at least $6 %: $(calc %s "($ratio >= $6) ? \"ok\" : \"missed\"")"
    line="$(calc %.4g "$2 * $4") to $(calc %.4g "$3 * $4") $5 = $ratio %$verdict"
  fi
  compared+=("$(printf '%-44s %s' "$1" "$line")")
}

# What PyTorch can be asked: nothing, the card, or with --tiny the CPU.
python=${PYTHON:-python3} torch="" no_torch=""
case $("$python" -c 'import torch; print(torch.cuda.is_available())' 2>/dev/null | tail -1) in
  True) torch=cuda ;;
  False) if [ -n "$tiny" ]; then torch=cpu; else no_torch="this PyTorch sees no card"; fi ;;
  *) no_torch="no PyTorch here" ;;
esac
size=4096 mib=256 copied=1024 gpt=() most=20 reps=3
if [ -n "$tiny" ]; then
  size=256 mib=4 copied=16 gpt=(--context 16 --layers 1) most=120 reps=1
elif [ "$kind" = software ]; then
  no_torch="software takes too long" torch=""
fi

# peer NAME MOST ARGUMENTS...: a line of JSON for each thing that PyTorch was asked, noted and made rows of.
peer() {
  local name="PyTorch: $1" most=$2 line key rate
  shift 2
  if [ -z "$torch" ]; then
    row "$name" - "skipped: $no_torch"
    return
  fi
  # What was said before the time was up stays said.
  measured "$name" "$most" "$python" "$work/gpu_torch.py" --device "$torch" "$@" &&
    row "$name" "$took" "$(head -1 <<<"$out" | sed -n 's/.*"card": "\([^"]*\)".*"torch": "\([^"]*\)".*/\1, PyTorch \2/p')"
  while read -r line; do
    key=$(text case "$line")_$(text precision "$line")_$(text mode "$line")
    rate=$(number items_per_s "$line")
    theirs[$key]=$rate
    losses[torch_$key]=$(grep -o '"losses": *\[[^]]*' <<<"$line" | sed 's/.*\[//')
    if [ -n "$rate" ]; then
      row "  $(text case "$line") $(text precision "$line") $(text mode "$line")" "$(calc %.3f "1e3 * $(number median_s "$line")") ms" \
        "$(calc %.4g "$rate") $(text unit "$line")/s$(number batch "$line" | sed 's/^/, batch /')"
    else
      row "  $(text case "$line") $(text precision "$line") $(text mode "$line")" - "$(text failed "$line")$(text skipped "$line" | sed 's/^/skipped: /')"
    fi
  done < <(grep '^{' <<<"$out")
}

# By the adapter's own clock: how fast the launches of a case are, whatever the way there costs.
for name in "matmul_${size}_f32" "matmul_${size}_f16" "matmul_${size}_bf16" "add_$mib" "row_sum_$mib" elementwise_fused; do
  if [ "$kind" = software ] && { [ -z "$tiny" ] || [ "$name" = elementwise_fused ]; }; then
    row "kit: $name" - "skipped: software takes too long"
    continue
  fi
  measured "kit: $name" "$most" "$thalweg" kit --case "$name" --device "$device" --reps 5 --profile --json || continue
  ours[$name]=$(calc %.6g "$(number items_per_s "$out") * $(number median_s "$out") / $(number launches_s "$out")")
  row "kit: $name" "$took" "$(calc %.4g "${ours[$name]}") $(text unit "$out")/s in launches, a step $(calc %.4f "1e3 * $(number median_s "$out")") ms"
done
peer "matmul $size, copy of $copied MiB" 60 --case matmul,copy --size "$size" --mib "$copied"

# learns CASE PRECISION MOST ARGUMENTS...: a training step of ours, with where its time goes.
learns() {
  local case=$1 precision=$2 most=$3 name="kit: $1 $2${4:+ ${*:4}}"
  shift 3
  measured "$name" "$most" "$thalweg" kit --case "$case" --device "$device" --precision "$precision" --losses 3 --reps "$reps" --profile \
    --json "$@" || return 1
  sed -n '/µs \/ run/,$p' "$work/stderr" >"$work/profile.${case}_$precision"
  ours[${case}_$precision]=$(number items_per_s "$out")
  losses[thalweg_${case}_$precision]=$(grep -o '"losses":\[[^]]*' <<<"$out" | sed 's/.*\[//')
  row "$name" "$took" "a step $(calc %.3f "1e3 * $(number median_s "$out")") ms, launches $(calc %.3f "1e3 * $(number launches_s "$out")") ms, $(calc %.5g "$(number items_per_s "$out")") tokens/s"
}
if [ "$kind" = software ] && [ -z "$tiny" ]; then
  row "kit: gpt2_train" - "skipped: software takes too long"
  peer gpt2_train 1
else
  # The arena of a step is one buffer, which many drivers let be 4 GiB and no larger: the largest batch that there is room for.
  for batch in 4 2 1; do
    [ -z "$tiny" ] || [ "$batch" = 1 ] || continue
    learns gpt2_train f32 $((most + 50)) --batch "$batch" "${gpt[@]}" && break
    grep -q 'there is no room' "$work/stderr" || break
  done
  learns gpt2_train bf16 $((most + 40)) --batch "$batch" "${gpt[@]}"
  peer "gpt2_train" 140 --case gpt2_train --batch "$batch" "${gpt[@]}" --reps "$reps" --limit 90
fi
if [ "$kind" = software ]; then
  row "kit: gpt_train" - "skipped: software takes too long"
else
  learns gpt_train f32 30
  learns gpt_train bf16 30
  peer gpt_train 70 --case gpt_train --reps "$reps" --limit 45
fi

cases=(mlp_small_train lenet_train mlp_train resnet18_cifar_train tiny_ops matmul_2048)
for name in "${cases[@]}"; do
  if [ "$kind" = software ]; then
    case $name in
      mlp_small_train | tiny_ops) ;;
      *) row "kit: $name" - "skipped: software takes too long"; continue ;;
    esac
  fi
  measured "kit: $name" 40 "$thalweg" kit --case "$name" --device "$device" --reps 5 && row "kit: $name" "$took" "${out#*: }"
done

passes=30
[ "$kind" != software ] || passes=1
measured "demo, $passes pass(es)" 120 "$thalweg" demo --device "$device" --passes "$passes" --json &&
  row "demo, $passes pass(es)" "$took" "$(tail -1 <<<"$out" | cut -c1-120)"
measured "demo on the CPU, $passes pass(es)" 120 "$thalweg" demo --passes "$passes" --json &&
  row "demo on the CPU, $passes pass(es)" "$took" "$(tail -1 <<<"$out" | cut -c1-120)"

for suite in "${suites[@]}"; do
  name=${suite#*:}
  THALWEG_REQUIRE=vulkan measured "tests: $name" 120 "$work/$name.test" &&
    row "tests: $name" "$took" "$(sed -n 's/^test result: //p' <<<"$out" | tail -1 | cut -d';' -f1-2)"
done

copy=${theirs[copy__]:-}
beside="PyTorch's copy_"
if [ -z "$copy" ]; then
  # The adapter's own copy, as measured above through the same driver.
  copy=$("$thalweg" devices --json | grep "\"name\":\"$device\"" | grep -o '"copy_bytes":[0-9.eE+]*' | cut -d: -f2)
  [ -z "$copy" ] || copy=$(calc %.6g "$copy / 1e9")
  beside="the driver's copy"
fi
compare "product of $size³ in f32, torch.matmul" "${ours[matmul_${size}_f32]:-}" "${theirs[matmul_f32_]:-}" 1e-3 TFLOP/s 60
compare "  the same with TF32" "${ours[matmul_${size}_f32]:-}" "${theirs[matmul_tf32_]:-}" 1e-3 TFLOP/s ""
compare "product of $size³ in f16, torch.matmul" "${ours[matmul_${size}_f16]:-}" "${theirs[matmul_f16_]:-}" 1e-3 TFLOP/s 50
compare "product of $size³ in bf16, torch.matmul" "${ours[matmul_${size}_bf16]:-}" "${theirs[matmul_bf16_]:-}" 1e-3 TFLOP/s 50
compare "a + b of $mib MiB each, $beside" "${ours[add_$mib]:-}" "$copy" 1 GB/s 80
compare "sums of rows of $mib MiB, $beside" "${ours[row_sum_$mib]:-}" "$copy" 1 GB/s 80
for case in gpt2_train gpt_train; do
  for precision in f32 bf16; do
    for mode in eager compile; do
      compare "$case $precision, PyTorch $mode" "${ours[${case}_$precision]:-}" "${theirs[${case}_${precision}_$mode]:-}" 1 tokens/s ""
    done
    # The same weights, the same tokens: three losses say whether it is the same model.
    a=${losses[thalweg_${case}_$precision]:-} b=${losses[torch_${case}_${precision}_eager]:-}
    if [ -n "$a" ] && [ -n "$b" ]; then
      apart=$(awk -v a="$a" -v b="$b" 'BEGIN { n = split(a, x, ","); m = split(b, y, ","); worst = (n == m) ? 0 : 1
        for (i = 1; i <= n; i++) { d = (x[i] - y[i]) / y[i]; if (d < 0) d = -d; if (!(d <= worst)) worst = d }
        printf "%.1e", worst }')
      bound=$([ "$precision" = f32 ] && echo 1e-3 || echo 1e-2)
      right=$(calc %s "($apart <= $bound) ? \"ok\" : \"FAILED\"")
      [ "$right" = ok ] || failures=$((failures + 1))
      compared+=("$(printf '%-44s %s' "  losses of three steps apart" "$apart, at most $bound: $right")")
    fi
  done
done

printf '\n%-42s %10s  %s\n' step took result
printf '%s\n' "${rows[@]}"
printf '\n%-44s %s\n' 'beside others' 'Thalweg to the other = share'
[ "$kind" != software ] || echo "(in software: these show that it can be measured, and say nothing of a card)"
printf '%s\n' "${compared[@]}"
# Layers do the same: what differs in their number alone is one row.
for profile in "$work"/profile.*_f32 "$work"/profile.*_bf16; do
  [ -e "$profile" ] || continue
  printf '\nwhere the time of %s goes, longest first\n%9s  %6s  %8s  launch\n' "${profile##*/profile.}" 'µs / step' share launches
  awk 'NR > 1 && $2 ~ /%$/ && $3 ~ /^[0-9]+$/ {
      us = $1; share = $2 + 0; sub(/^ *[^ ]+ +[^ ]+ +[^ ]+ +/, ""); gsub(/h[0-9]+/, "h*")
      took[$0] += us; part[$0] += share; count[$0]++ }
    END { for (what in took) printf "%9.1f  %5.1f%%  %8d  %s\n", took[what], part[what], count[what], what }' "$profile" |
    sort -rn | head -30 | cut -c1-220
  tail -1 "$profile"
done
echo "$((SECONDS - deadline + limit)) s in all, $failures failed"
exit $((failures > 0))
