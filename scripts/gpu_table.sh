#!/usr/bin/env bash
# The paper's Tables 2 to 4 (automobile of CIFAR-10, VP SDE, from random weights) with the small network, on one GPU:
#
#     scripts/gpu_table.sh MINUTES [OUT] [--set KEY=VALUE ...]
#
# Each row is trained for as many steps as two thirds of MINUTES allow, by the seconds that a dry run takes for a step; the
# rest is for the judge and for measuring. When MINUTES are over, what was done is saved. The same command then goes on, with
# the steps and settings that it began with; OUT (runs/gpu-table) holds them. MSGM_DATA names the folder of the data.
set -euo pipefail
minutes=${1:?usage: scripts/gpu_table.sh MINUTES [OUT] [--set KEY=VALUE ...]}
out=${2:-runs/gpu-table}
rows=do-nothing,unseen-scratch,orthogonal,obtuse,erasediff-weighted,redirect

if [ -f "$out/config.yaml" ]; then
    begun=("$out/config.yaml")
else
    begun=(cifar10/vp_small --set 'request.labels=[automobile]' "${@:3}")
    # The last column of a row is its seconds a step.
    seconds=$(msgm compare "${begun[@]}" --dry-run --only "$rows" |
        awk -v rows="$rows" 'index("," rows ",", "," $1 ",") { sum += $NF } END { print sum }')
    steps=$(awk "BEGIN { steps = int($minutes * 60 * 2 / 3 / $seconds); print (steps > 1 ? steps : 1) }")
    echo "one step of all rows takes $seconds s: $steps steps each"
    begun=(cifar10/vp_small --set 'request.labels=[automobile]' --set "training.steps=$steps" "${@:3}" --start scratch)
fi

code=0
timeout --signal=INT "${minutes}m" msgm compare "${begun[@]}" --only "$rows" --out "$out" \
    --metrics ur,nll,inpainting,reconstruction || code=$?
if [ "$code" -ne 0 ]; then
    [ "$code" -ne 124 ] || echo "$minutes minutes are over; the same command goes on from $out" >&2
    exit "$code"
fi

python - <<'END'
from msgm.evaluation.published import RELEASED, RESULTS

found = next(r for r in RESULTS if (r.table, r.classes) == ("Table 2", ("automobile",)))
values = ", ".join(f"{method} {value['ur']}" for method, value in found.values.items())
print(f"\nThe paper's Table 2, closed-set UR %: {values}; a larger network, {RELEASED['training.steps']:,} steps.")
print("The paper's Tables 3 (inpainting) and 4 (reconstruction): no value could be read without doubt.")
END
