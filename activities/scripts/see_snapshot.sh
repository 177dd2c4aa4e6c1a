# Tell what the SNAPSHOT of sessions is, and everything that is wrong with it. Changes nothing.
. ./snapshot.sh
file=$SNAPSHOT
[ ! -d "$SNAPSHOT" ] || file=$SNAPSHOT/sessions.rdb
told_of() { # $1 name of what the manifest beside the snapshot says
    sed -n "s/^$1\t//p" "$SNAPSHOT/manifest.tsv" 2>/dev/null
}
wrong() { printf 'fault\t%s\n' "$1"; exit 0; }
[ -e "$file" ] || wrong "snapshot: there is no $file"
[ -f "$file" ] && [ -r "$file" ] || wrong "snapshot: $file cannot be read by $(id -un); let that be its owner"
case $(head -c 6 "$file") in
    REDIS0 | VALKEY) ;;
    *) wrong "snapshot: $file is no snapshot (RDB)" ;;
esac
bytes=$(stat -c %s "$file") digest=$(sum "$file")
if [ -d "$SNAPSHOT" ]; then
    [ -n "$(told_of digest)" ] || wrong "snapshot: there is no $SNAPSHOT/manifest.tsv that tells of it; name the file itself"
    [ "$(told_of bytes) $(told_of digest)" = "$bytes $digest" ] ||
        wrong "snapshot: $file is not what its manifest says: it was damaged, or changed; take another one"
fi
"$SERVER" --version >/dev/null 2>&1 || wrong "server: $SERVER cannot be run"
fold=$(mktemp -d) && trap 'rm -rf "$fold"' EXIT || exit
case ${SERVER##*/} in *redis*) as=redis-check-rdb ;; *) as=valkey-check-rdb ;; esac
ln -s "$SERVER" "$fold/$as" # by this name it is a program that checks, and serves nobody
"$fold/$as" "$file" >"$fold/said" 2>&1 || {
    why=$(sed -n '/ERROR DETECTED/{n;s/^\[offset \([0-9]*\)\] \(.*\)/\2, at byte \1/p;}' "$fold/said" | head -n 1)
    wrong "snapshot: $file is damaged, or of a version that $SERVER does not read ($why); take another one"
}
keys=$(sed -n 's/^\[info\] \([0-9]*\) keys read$/\1/p' "$fold/said")
[ -n "$keys" ] || wrong "server: $SERVER does not check snapshots as Valkey does"
free=$(df --output=avail -B 1 "$COPIES" 2>/dev/null | tail -n 1)
[ "${free:-0}" -gt "$((bytes + bytes / 2))" ] ||
    printf 'fault\tcopies: a copy of %s bytes has no room in %s; free some, or make that folder\n' "$bytes" "$COPIES"
printf 'bytes\t%s\ndigest\t%s\nkeys\t%s\n' "$bytes" "$digest" "$keys"
