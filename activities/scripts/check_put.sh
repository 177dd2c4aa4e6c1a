# Tell of every session that PLAN in OUT puts into the store what became of it: how many, by fate. Changes nothing.
. ./snapshot.sh
[ "$(sum "$OUT/plan.tsv")" = "$PLAN" ] || fail Drifted "$OUT/plan.tsv is not what was decided on"
fold=$(mktemp -d) && trap 'rm -rf "$fold"' EXIT || exit
awk -F '\t' '$2 == "add" || $2 == "replace" { print $1 " " $3 }' "$OUT/plan.tsv" | calls EVAL_RO "check $MARK" 50 >"$fold/asked"
outside "$fold/asked" | tr -d '\r' >"$fold/said"
grep -vE '^[a-z]*$' "$fold/said" | refused || exit
grep . "$fold/said" | sort | uniq -c | awk -v OFS='\t' '{ print $2, $1 }'
