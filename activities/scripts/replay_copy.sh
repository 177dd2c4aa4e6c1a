# Start the server of COPY and let it replay up to its target; ENOUGH is a log position written after the target,
# so a server that has reached it without meeting a later commit holds all there is.
# Replay stops before a commit, but not before the locks of that transaction: a table that is being dropped at the
# target could not be read for ever. Then the copy is promoted, which ends what was in flight; it stays read-only.
. ./paced.sh
set -u
export LC_ALL=C PGCONNECT_TIMEOUT=5
fail() { echo "$1: $2" >&2; exit 3; }
ask() { "$BIN/psql" -wXAtq -h "$COPY/run" -p "$COPYPORT" -U "$DBUSER" -d "$DBNAME" -c "$1" 2>"$COPY/asked"; }
refused() { grep FATAL "$COPY/asked" | grep -v -E 'starting up|accepting connections|shutting down|recovery mode|too many'; }
why() {
    [ "$(df --output=avail "$COPY" | tail -n 1)" -gt 0 ] || { echo "No space left: free room under $(dirname "$COPY")"; return; }
    grep -E 'FATAL|PANIC|checksum|invalid|incorrect|unexpected' "$COPY/log" 2>/dev/null | tail -n 1 |
        sed 's/^.*\(FATAL\|PANIC\|LOG\): */the server says: /'
}
# The server must not carry this job's mark, nor end with it; its own one shows it before it has a pid file.
"$BIN/pg_ctl" -D "$COPY/data" status >/dev/null 2>&1 ||
    env -u RECOVERY_JOB RECOVERY_COPY="$COPY" "$BIN/pg_ctl" -D "$COPY/data" -l "$COPY/log" -W start >/dev/null 2>&1 </dev/null
tries=0 last='' since=$(date +%s)
while :; do
    state=$(ask "select case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() else 'promoted' end || ' ' ||
        (select count(*) from pg_locks join pg_stat_activity using (pid) where backend_type = 'startup'
            and mode = 'AccessExclusiveLock' and locktype = 'relation') || ' ' ||
        coalesce(pg_last_wal_replay_lsn() >= '$ENOUGH'::pg_lsn, false) || ' ' || coalesce(pg_last_wal_replay_lsn(), '0/0')")
    told_log "$COPY/data" "${state##* }" "$ENOUGH"
    case $state in
        promoted*) exit 0 ;;
        'paused 0 '*) exit 0 ;;
        paused*)
            if grep -q 'recovery stopping' "$COPY/log"; then
                : >"$COPY/promoted" # so that it can be told from a copy that somebody else promoted
                "$BIN/pg_ctl" -D "$COPY/data" -w -t 600 promote >/dev/null 2>&1
            else
                ask 'select pg_wal_replay_resume()' >/dev/null # not at the target yet: they may still end before it
            fi
            ;;
        'not paused '*' true '*) ask 'select pg_wal_replay_pause()' >/dev/null ;;
    esac
    if ! "$BIN/pg_ctl" -D "$COPY/data" status >/dev/null 2>&1; then
        tries=$((tries + 1)) # it has a moment to write its pid file
        [ "$tries" -lt 40 ] || fail Fatal "the copy's server is not running; $(why)"
    fi
    ! said=$(refused) || fail Refused "the copy does not let $DBUSER into $DBNAME: $(printf '%s' "$said" | tail -n 1)"
    # The same file again is no progress: a damaged one is fetched for ever.
    seen="$state $(grep -o 'restored log file "[^"]*"' "$COPY/log" 2>/dev/null | tail -n 1)"
    if [ "$seen" != "$last" ]; then
        last=$seen since=$(date +%s)
    elif [ $(($(date +%s) - since)) -gt "${QUIET:-120}" ]; then # seconds
        fail Fatal "nothing was replayed for ${QUIET:-120} s: a segment of the log is missing or damaged; $(why)"
    fi
    # Each look takes from the processors what the replay could have.
    case $state in 'not paused'*) sleep 0.2 ;; *) sleep 0.05 ;; esac
done
