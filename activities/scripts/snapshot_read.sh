# Tell what was planned in OUT, whether it is as it was written, and of which keys two versions are. Changes nothing.
export LC_ALL=C
if [ ! -e "$OUT" ]; then
    [ ! -e "$OUT.partial" ] || printf 'stage\tpartial\nowner\t%s\n' "$(cat "$OUT.partial/owner" 2>/dev/null)"
    exit 0
fi
said() { sed -n "s/^$1\t//p" "$OUT/manifest.tsv" 2>/dev/null; }
is="$(stat -c %s "$OUT/sessions.rdb" 2>/dev/null) $(sha256sum "$OUT/plan.tsv" 2>/dev/null | cut -c1-64)"
[ "$is" = "$(said bytes) $(said plan)" ] && stage=read || stage=damaged
printf 'stage\t%s\nowner\t%s\n' "$stage" "$(cat "$OUT/owner" 2>/dev/null)"
cat "$OUT/manifest.tsv" 2>/dev/null || :
awk -F '\t' '$2 ~ /^(replace|keep|unsure)$/ && named++ < 20 { print "named\t" $1 " " $2 }' "$OUT/plan.tsv" 2>/dev/null || :
