# Tell what the database in DATA is: a primary or a standby, how far it is, whom it follows, who follows it. Changes nothing.
# REACH is how this host reaches another database to replicate it; with it all is told that only an assessment needs.
# Without it little is: a switch looks a dozen times while clients are shut out.
. ./running.sh
say() { printf '%s\t%s\n' "$1" "$2"; }
about=$("$BIN/pg_controldata" -D "$DATA" 2>/dev/null)
control() { printf '%s\n' "$about" | sed -n "s/^$1: *//p"; }
at=$(identity "$DATA")
printf '%s\n' "$about" | sed -n 's/^Database system identifier: */system\t/p
    s/^Database cluster state: */control\t/p; s/^Latest checkpoint location: */checkpoint\t/p
    s/^Latest checkpoint.s TimeLineID: */timeline\t/p; s/^Data page checksum version: */checksums\t/p'
[ ! -e "$DATA/standby.signal" ] || say signal yes
[ ! -e "$COPY" ] || say kept "$([ -e "$COPY/kept/role" ] && echo yes || echo half)"
[ ! -e "$COPY/kept/promoted" ] || say promoted yes
[ ! -e "$COPY/kept/written" ] || say written yes
[ ! -e "$COPY/kept/joining" ] || say joining yes
if [ -n "$at" ] && [ -n "$(servers "$at")" ]; then
    printf 'serving\tyes\nlistening\tyes\n' # or may, at any moment
else
    port=$(printf ':%04X' "$PORT")
    ! cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v p="$port" '
        $4 == "0A" && substr($2, length($2) - 4) == p { found = 1 } END { exit !found }' || say listening yes
fi
settings="null"
if [ -n "$REACH" ]; then
    # A promotion takes the next timeline: one that was archived here already could not be archived again.
    line=$(printf '%s\n' "$(control "Latest checkpoint's TimeLineID")" "$(control "Min recovery ending loc's timeline")" | sort -n | tail -n 1)
    newest=$(ls "$ARCHIVE" 2>/dev/null | sed -n 's/^\([0-9A-F]\{8\}\)\.history$/\1/p' | sort | tail -n 1)
    if [ -e "$DATA/standby.signal" ] && [ -n "$newest" ] && expr "$newest" '>' "$(printf %08X "${line:-0}")" >/dev/null; then
        say fault "archive: $ARCHIVE holds timeline $newest, which would be begun anew; put its files elsewhere"
    fi
    for folder in "$DATA".switch-*; do
        [ ! -d "$folder" ] || [ "$folder" = "$COPY" ] || say left "${folder##*.switch-}"
    done
    say free "$(df -Pk "$DATA" 2>/dev/null | awk 'NR == 2 { print $4 }')"
    [ -d "$JOBS" ] && [ -w "$JOBS" ] || say fault "jobs: $JOBS cannot be written to"
    [ ! -e "$JOBS/kill-switch" ] || say fault "the kill switch $JOBS/kill-switch is on"
    for program in pg_ctl psql pg_rewind pg_basebackup pg_controldata; do
        [ -x "$BIN/$program" ] || say fault "bin: $program is missing in $BIN"
    done
    settings="(select json_object_agg(name, setting) from pg_settings where name in ('max_connections',
        'max_prepared_transactions', 'max_locks_per_transaction', 'max_wal_senders', 'max_worker_processes', 'wal_level',
        'archive_mode', 'track_commit_timestamp', 'wal_log_hints', 'shared_preload_libraries', 'full_page_writes'))"
fi
live=$(ask "select json_build_object(
    'role', case when pg_is_in_recovery() then 'standby' else 'primary' end,
    'version', current_setting('server_version'),
    'flushed', case when pg_is_in_recovery() then greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
        else pg_current_wal_flush_lsn() end,
    'replayed', pg_last_wal_replay_lsn(),
    'committed', to_char(pg_last_xact_replay_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    'line', case when pg_is_in_recovery() then (select received_tli from pg_stat_wal_receiver)
        else ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int end,
    'of', coalesce((select sender_host || ':' || sender_port from pg_stat_wal_receiver), ''),
    'streaming', coalesce((select status = 'streaming' from pg_stat_wal_receiver), false),
    'follows', coalesce(substring(current_setting('primary_conninfo') from 'host=(\\S+)') || ':' ||
        substring(current_setting('primary_conninfo') from 'port=(\\S+)'), ''),
    'followers', (select count(*) from pg_stat_replication where state = 'streaming'),
    'synchronous', (select count(*) from pg_stat_replication where state = 'streaming' and sync_state in ('sync', 'quorum')),
    'clients', (select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()),
    'limit', current_setting('max_connections')::int,
    'reserved', current_setting('superuser_reserved_connections')::int +
        coalesce(current_setting('reserved_connections', true)::int, 0),
    'settings', $settings)" \
    2>/dev/null) && say live "$live"
if [ -n "$REACH" ]; then
    if known=$(timeout 10 "$BIN/psql" -wXAtq -F ' ' -d "$REACH replication=true" -c 'IDENTIFY_SYSTEM' 2>&1); then
        say reached "$(printf '%s\n' "$known" | sed -n 's/^\([0-9][0-9]*\) .*/\1/p')" # before it there may be warnings
    else
        say unreached "$(printf '%s' "${known:-it does not answer}" | tr '\n\t' '  ' | head -c 300)"
    fi
fi
exit 0
