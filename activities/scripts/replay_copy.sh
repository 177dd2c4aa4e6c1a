# Start the server of COPY and let it replay up to its target; ENOUGH is a log position written after the target,
# so a server that has reached it without meeting a later commit holds all there is.
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
    state=$(ask "select pg_get_wal_replay_pause_state() || coalesce(pg_last_wal_replay_lsn() >= '$ENOUGH'::pg_lsn, false)")
    case $state in
        paused*) exit 0 ;;
        *requested*) ;;
        *true) ask 'select pg_wal_replay_pause()' >/dev/null ;;
    esac
    if ! "$BIN/pg_ctl" -D "$COPY/data" status >/dev/null 2>&1; then
        tries=$((tries + 1)) # it has a moment to write its pid file
        [ "$tries" -lt 40 ] || fail Fatal "the copy's server is not running; $(why)"
    fi
    sleep 0.05
done
