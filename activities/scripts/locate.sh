# Tell where in the log the transaction TARGET ended, or the restore point of that name is.
# SEGMENTS are oldest first and unbroken. Changes nothing.
export LC_ALL=C TZ=UTC
. ./reading.sh
first= last=
for segment in $SEGMENTS; do
    bring "$segment" || continue
    last=$TIMELINE${segment#????????} first=${first:-$last}
done
[ -n "$first" ] || exit 0
if [ "$KIND" = xid ]; then
    "$BIN/pg_waldump" -p . --rmgr=Transaction "$first" "$last" 2>err |
        sed -nE "s/^.* tx: +$TARGET, lsn: ([0-9A-F\/]+), .* desc: ((COMMIT|ABORT) [0-9-]+ [0-9:.]+).*/found\t\1\t\2/p
            s/^.* lsn: ([0-9A-F\/]+), .* desc: ((COMMIT|ABORT)_PREPARED) $TARGET: ([0-9-]+ [0-9:.]+).*/found\t\1\t\2 \4/p"
else
    "$BIN/pg_waldump" -p . --rmgr=XLOG "$first" "$last" 2>err | NAME=$TARGET awk '
        { at = index($0, " desc: RESTORE_POINT ") }
        at && substr($0, at + 21) == ENVIRON["NAME"] { match($0, / lsn: [0-9A-F\/]+,/); print "found\t" substr($0, RSTART + 6, RLENGTH - 7) "\t" }'
fi
# Where nothing is written yet it says the same as where something is damaged; it is told at which place.
sed -nE 's|^.*error in WAL record at ([0-9A-F]+/[0-9A-F]+): (.* at ([0-9A-F]+/[0-9A-F]+).*)$|unread\t\3\tafter \1: \2|p; t
    s|^.*error in WAL record at ([0-9A-F]+/[0-9A-F]+): (.*)$|unread\t\1\tafter \1: \2|p' err
