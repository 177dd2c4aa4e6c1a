# Remove the copy of a snapshot, and what was planned for it, in OUT, if it is OWNER's.
export LC_ALL=C
for folder in "$OUT" "$OUT.partial"; do
    [ -e "$folder" ] || continue
    [ ! -s "$folder/owner" ] || [ "$(cat "$folder/owner")" = "$OWNER" ] ||
        { echo "Drifted: $folder belongs to another recovery" >&2; exit 3; }
    [ "$folder" != "$OUT" ] || mv -T "$OUT" "$OUT.partial"
    rm -rf "$OUT.partial"
done
