# Tell what the export in OUT holds: its manifest, and whether its files are as long as that says. Changes nothing.
export LC_ALL=C
if [ -e "$OUT.partial" ]; then
    printf 'stage\tpartial\nowner\t%s\n' "$(cat "$OUT.partial/owner" 2>/dev/null)"
fi
[ -e "$OUT" ] || exit 0
printf 'stage\texported\nowner\t%s\nmanifest\t%s\n' "$(cat "$OUT/owner" 2>/dev/null)" \
    "$(sha256sum <"$OUT/manifest.tsv" | cut -c1-64)"
tail -n +2 "$OUT/manifest.tsv"
awk -F '\t' '$1 == "table" { print $5 "\t" $4 }' "$OUT/manifest.tsv" | while IFS="$(printf '\t')" read -r bytes file; do
    [ "$(stat -c %s "$OUT/$file" 2>/dev/null)" = "$bytes" ] || printf 'damaged\t%s\n' "$file"
done
