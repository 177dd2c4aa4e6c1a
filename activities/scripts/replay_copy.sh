# Start the server of COPY and let it replay up to its target; ENOUGH is a log position written after the target,
# so a server that has reached it without meeting a later commit holds all there is.
# Replay stops before a commit, but not before the locks of that transaction: a table that is being dropped at the
# target could not be read for ever. Then the copy is promoted, which ends what was in flight; it stays read-only.
set -u
export LC_ALL=C PGCONNECT_TIMEOUT=5
fail() { echo "$1: $2" >&2; exit 3; }
ask() { "$BIN/psql" -wXAtq -h "$COPY/run" -p "$COPYPORT" -U "$DBUSER" -d "$DBNAME" -c "$1" 2>/dev/null; }
why() { grep -E 'FATAL|PANIC' "$COPY/log" 2>/dev/null | tail -n 1 | sed 's/^.*\(FATAL\|PANIC\): */the server says: /'; }
# The server must not carry this job's mark, nor end with it.
"$BIN/pg_ctl" -D "$COPY/data" status >/dev/null 2>&1 ||
    env -u RECOVERY_JOB "$BIN/pg_ctl" -D "$COPY/data" -l "$COPY/log" -W start >/dev/null 2>&1 </dev/null
tries=0
while :; do
    state=$(ask "select case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() else 'promoted' end || ' ' ||
        (select count(*) from pg_locks join pg_stat_activity using (pid) where backend_type = 'startup'
            and mode = 'AccessExclusiveLock' and locktype = 'relation') || ' ' ||
        coalesce(pg_last_wal_replay_lsn() >= '$ENOUGH'::pg_lsn, false)")
    case $state in
        promoted*) exit 0 ;;
        'paused 0 '*) exit 0 ;;
        paused*)
            if grep -q 'recovery stopping' "$COPY/log"; then
                "$BIN/pg_ctl" -D "$COPY/data" -w -t 600 promote >/dev/null 2>&1
            else
                ask 'select pg_wal_replay_resume()' >/dev/null # not at the target yet: they may still end before it
            fi
            ;;
        'not paused '*true) ask 'select pg_wal_replay_pause()' >/dev/null ;;
    esac
    if ! "$BIN/pg_ctl" -D "$COPY/data" status >/dev/null 2>&1; then
        tries=$((tries + 1)) # it has a moment to write its pid file
        [ "$tries" -lt 40 ] || fail Fatal "the copy's server is not running; $(why)"
    fi
    sleep 0.05
done
