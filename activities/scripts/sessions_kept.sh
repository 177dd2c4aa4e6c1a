# Tell what the snapshot in OUT holds, and whether it is as long as it says. Changes nothing.
export LC_ALL=C
if [ ! -e "$OUT" ]; then
    [ ! -e "$OUT.partial" ] || printf 'stage\tpartial\nowner\t%s\n' "$(cat "$OUT.partial/owner" 2>/dev/null)"
    exit 0
fi
bytes=$(sed -n 's/^bytes\t//p' "$OUT/manifest.tsv" 2>/dev/null)
[ "$(stat -c %s "$OUT/sessions.rdb" 2>/dev/null)" = "${bytes:-none}" ] && stage=kept || stage=damaged
printf 'stage\t%s\nowner\t%s\n' "$stage" "$(cat "$OUT/owner" 2>/dev/null)"
cat "$OUT/manifest.tsv" 2>/dev/null || :
