# Let the restored database archive nothing again, and take the files of its timeline out of the archive.
. ./running.sh
. ./backups.sh
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
    # It goes by the new settings before it begins with another file; one that it is just archiving is waited for.
    archiver=$(ask "select pid from pg_stat_activity where backend_type = 'archiver'")
    idle=0 since=$(date +%s)
    while [ -n "$archiver" ] && [ -d "/proc/$archiver" ] && [ "$idle" -lt 3 ]; do
        [ $(($(date +%s) - since)) -lt 60 ] || later 'the archiver is busy for a minute: does archive_command hang?'
        idle=$((idle + 1))
        ! grep -qE '^S(ig|hd)Pnd:.*[1-9a-f]' "/proc/$archiver/status" || idle=0
        [ -z "$(cat "/proc/$archiver/task/$archiver/children")" ] || idle=0
        sleep 0.02
    done
    # Whoever archives it later archives all of it.
    rm -f "$DATA/pg_wal/archive_status/$timeline"*
fi
forget_archived "$timeline"
rm -f "$kept/archiving" "$kept/arrived" "$kept/auto.conf"
