# Have each session that was put into the store taken "back", or "forget" how it was before, one as the other until the end.
# What clients have written since stays; it is listed in OUT.stayed.tsv.
. ./store.sh
umask 077
changed=1
while [ "$changed" != 0 ]; do
    cursor=0 changed=0
    : >"$OUT.stayed.new" || fail Fatal "nothing can be written beside $OUT: is the disk full?"
    while :; do
        ask eval "$TEXT" 0 "$HOW" "$MARK" "$cursor" 200
        IFS=' ' read -r word cursor more <<END
$first
END
        [ "$word" = cursor ] || fail Refused "$at does not do that: $(short)"
        changed=$((changed + more))
        printf '%s\n' "$told" | sed -n 's/^stayed //p' >>"$OUT.stayed.new"
        [ "$cursor" != 0 ] || break
    done
done
if [ -s "$OUT.stayed.new" ]; then mv "$OUT.stayed.new" "$OUT.stayed.tsv"; else rm -f "$OUT.stayed.new"; fi
rm -f "$OUT/begun"
ask eval "$TEXT" 0 over "$MARK"
