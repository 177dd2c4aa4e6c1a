# Tell how many sessions of PLAN in OUT were put into the store, and how many were left, as it is written there.
# Changes nothing.
. ./store.sh
planned=$(awk -F '\t' '$2 == "add" || $2 == "replace"' "$OUT/plan.tsv" 2>/dev/null | wc -l)
printf 'plan\t%s\nplanned\t%s\n' "$(sha256sum "$OUT/plan.tsv" 2>/dev/null | cut -c1-64)" "$planned"
[ ! -e "$OUT/begun" ] || printf 'traces\tyes\n'
[ ! -e "$OUT.stayed.tsv" ] || printf 'stayed\t%s\n' "$(wc -l <"$OUT.stayed.tsv")"
ask eval_ro "$TEXT" 0 counts "$MARK"
printf '%s\n' "$told" | awk -v OFS='\t' 'NF == 2 && $1 != "stayed" { print $1, $2 }'
