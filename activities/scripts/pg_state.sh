# Tell what the database in DATA is: a primary or a standby, how far it is, whom it follows, who follows it. Changes nothing.
# REACH is how this host reaches another database to replicate it; "" where that is not asked.
. ./running.sh
say() { printf '%s\t%s\n' "$1" "$2"; }
control() { printf '%s\n' "$about" | sed -n "s/^$1: *//p"; }
about=$("$BIN/pg_controldata" -D "$DATA" 2>/dev/null)
at=$(identity "$DATA")
say system "$(control 'Database system identifier')"
say control "$(control 'Database cluster state')"
say checkpoint "$(control 'Latest checkpoint location')"
say timeline "$(control "Latest checkpoint's TimeLineID")"
say checksums "$(control 'Data page checksum version')"
[ ! -e "$DATA/standby.signal" ] || say signal yes
[ ! -e "$COPY/kept/role" ] || say kept yes
[ ! -e "$COPY/kept/retiring" ] || say leaving yes
[ -z "$at" ] || [ -z "$(servers "$at")" ] || say serving yes
port=$(printf ':%04X' "$PORT")
! cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v p="$port" '
    $4 == "0A" && substr($2, length($2) - 4) == p { found = 1 } END { exit !found }' || say listening yes
say free "$(df -Pk "$DATA" 2>/dev/null | awk 'NR == 2 { print $4 }')"
say size "$(du -sk "$DATA" 2>/dev/null | cut -f 1)"
[ -d "$JOBS" ] && [ -w "$JOBS" ] || say fault "jobs: $JOBS cannot be written to"
[ ! -e "$JOBS/kill-switch" ] || say fault "the kill switch $JOBS/kill-switch is on"
for program in pg_ctl psql pg_rewind pg_basebackup pg_controldata; do
    [ -x "$BIN/$program" ] || say fault "bin: $program is missing in $BIN"
done
live=$(ask "select json_build_object(
    'role', case when pg_is_in_recovery() then 'standby' else 'primary' end,
    'version', current_setting('server_version'),
    'flushed', case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_flush_lsn() end,
    'replayed', pg_last_wal_replay_lsn(),
    'line', case when pg_is_in_recovery() then (select received_tli from pg_stat_wal_receiver)
        else ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int end,
    'of', coalesce((select sender_host || ':' || sender_port from pg_stat_wal_receiver), ''),
    'streaming', coalesce((select status = 'streaming' from pg_stat_wal_receiver), false),
    'follows', coalesce(substring(current_setting('primary_conninfo') from 'host=(\\S+)') || ':' ||
        substring(current_setting('primary_conninfo') from 'port=(\\S+)'), ''),
    'followers', (select count(*) from pg_stat_replication where state = 'streaming'),
    'clients', (select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()),
    'settings', (select json_object_agg(name, setting) from pg_settings where name in ('max_connections',
        'max_prepared_transactions', 'max_locks_per_transaction', 'max_wal_senders', 'max_worker_processes', 'wal_level',
        'archive_mode', 'track_commit_timestamp', 'wal_log_hints', 'shared_preload_libraries', 'full_page_writes')))" \
    2>/dev/null) && say live "$live"
if [ -n "$REACH" ]; then
    known=$("$BIN/psql" -wXAtq -F ' ' -d "$REACH replication=true" -c 'IDENTIFY_SYSTEM' 2>"${TMPDIR:-/tmp}/.reach.$$")
    how=$?
    [ "$how" = 0 ] && say reached "${known%% *}" || say unreached "$(tr '\n\t' '  ' <"${TMPDIR:-/tmp}/.reach.$$" | head -c 300)"
    rm -f "${TMPDIR:-/tmp}/.reach.$$"
fi
exit 0
