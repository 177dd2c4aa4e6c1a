# Tell the state of the copy in COPY. Changes nothing.
export LC_ALL=C PGCONNECT_TIMEOUT=5 PGTZ=UTC
if [ -e "$COPY" ]; then
    printf 'stage\tplaced\nowner\t%s\nbackup\t%s\n' "$(cat "$COPY/owner" 2>/dev/null)" "$(cat "$COPY/backup" 2>/dev/null)"
elif [ -e "$COPY.partial" ]; then
    printf 'stage\tpartial\nowner\t%s\n' "$(cat "$COPY.partial/owner" 2>/dev/null)"
fi
"$BIN/pg_ctl" -D "$COPY/data" status >/dev/null 2>&1 ||
    grep -qszxF "RECOVERY_COPY=$COPY" /proc/[0-9]*/environ || exit 0 # one that is being started has no pid file yet
printf 'server\trunning\n'
[ -e "$COPY/promoted" ] && promoted=promoted || promoted=taken
"$BIN/psql" -wXAtq -F "$(printf '\t')" -h "$COPY/run" -p "$COPYPORT" -U "$DBUSER" -d "$DBNAME" -c "
    select 'replay', case when not pg_is_in_recovery() then '$promoted'
            when exists (select from pg_locks join pg_stat_activity using (pid) where backend_type = 'startup'
                and mode = 'AccessExclusiveLock' and locktype = 'relation') then 'locked'
            else pg_get_wal_replay_pause_state() end,
        pg_last_wal_replay_lsn(), pg_last_xact_replay_timestamp() at time zone 'UTC'" 2>/dev/null || true
