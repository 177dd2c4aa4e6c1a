# Keep all that a store holds as a snapshot in OUT, for OWNER; nobody else may read it.
. ./store.sh
fold=$OUT.partial
full() { fail Fatal "nothing can be written into $fold: is the disk full? Free room under $(dirname "$OUT")"; }
[ ! -e "$OUT" ] || fail Drifted "$OUT stands there already"
[ ! -s "$fold/owner" ] || [ "$(cat "$fold/owner")" = "$OWNER" ] || fail Drifted "$fold belongs to another recovery"
umask 077
rm -rf "$fold"
mkdir -p "$fold" && printf '%s' "$OWNER" >"$fold/owner" || full
look
said=$(timeout 3600 "$CLI" -h "$ADDRESS" -p "$PORT" --rdb "$fold/sessions.rdb" 2>&1)
case $(head -c 6 "$fold/sessions.rdb" 2>/dev/null) in
    REDIS0 | VALKEY) ;;
    *)
        [ "$(df --output=avail "$fold" | tail -n 1)" -gt 0 ] || full
        later "$at gives no snapshot: $(printf '%s' "$said" | tail -n 1 | cut -c1-150)"
        ;;
esac
[ "$(tail -c 9 "$fold/sessions.rdb" | head -c 1 | od -An -tu1 | tr -d ' ')" = 255 ] || later "$at broke off its snapshot"
look
{
    printf 'bytes\t%s\n' "$(stat -c %s "$fold/sessions.rdb")"
    printf 'digest\t%s\n' "$(sha256sum <"$fold/sessions.rdb" | cut -c1-64)"
    printf 'keys\t%s\nhistory\t%s\noffset\t%s\n' "$(keys)" "$(field master_replid)" "$(offset)"
} >"$fold/manifest.tsv" || full
sync "$fold"/* && mv -T "$fold" "$OUT" || full
