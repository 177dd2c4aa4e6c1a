# Let the restored database archive nothing again, and take the files of its timeline out of the archive.
. ./running.sh
kept=$COPY/kept
copy=$(cat "$kept/copy" 2>/dev/null) timeline=$(cat "$kept/timeline" 2>/dev/null)
[ -e "$kept/archiving" ] || exit 0
[ -n "$timeline" ] || fail Fatal "$kept/timeline is gone: nobody knows what to take out of the archive"
if [ -n "$copy" ] && [ "$(identity "$DATA")" = "$copy" ]; then
    muted >"$kept/auto.conf" && chmod --reference="$DATA/postgresql.auto.conf" "$kept/auto.conf" || full
    cmp -s "$kept/auto.conf" "$DATA/postgresql.auto.conf" || keep "$kept/auto.conf" "$DATA/postgresql.auto.conf"
    reread
    PGOPTIONS='-c default_transaction_read_only=off -c session_replication_role=replica' \
        ask "drop schema if exists $canary cascade" >/dev/null 2>&1
    # One that is just archiving a file is asked to end after it; its successor knows the new settings only.
    archiver=$(ask "select pid from pg_stat_activity where backend_type = 'archiver'")
    [ -z "$archiver" ] || kill -USR2 "$archiver" 2>/dev/null
    tries=0
    while [ -n "$archiver" ] && [ -d "/proc/$archiver" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 500 ] || later 'the archiver does not end: does archive_command hang?'
        sleep 0.02
    done
    # Whoever archives it later archives all of it.
    rm -f "$DATA/pg_wal/archive_status/$timeline"*
fi
rm -f "$ARCHIVE/$timeline"* "$ARCHIVE/.$timeline"*
rm -f "$kept/archiving" "$kept/auto.conf"
