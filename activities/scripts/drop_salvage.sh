# Remove the export OUT, if it belongs to OWNER.
export LC_ALL=C
fail() { echo "$1: $2" >&2; exit 3; }
for folder in "$OUT" "$OUT.partial"; do
    [ -e "$folder" ] || continue
    [ ! -s "$folder/owner" ] || [ "$(cat "$folder/owner")" = "$OWNER" ] || fail Drifted "$folder belongs to another recovery"
    [ "$folder" != "$OUT" ] || mv "$OUT" "$OUT.partial" # from here on it is no export that anybody could take for whole
    rm -rf "$OUT.partial"
done
