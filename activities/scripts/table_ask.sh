# Ask a database SQL over one connection, which reads; UPTO has it first come to so many bytes in the log.
# For that PATIENCE seconds are waited, by questions that are short: a long one would hold up what a standby replays.
# What an error says may have the contents of a row in it: its code is told, and nothing else.
export LC_ALL=C PGCONNECT_TIMEOUT=5 PGAPPNAME='recovery sessions'
# Both sides have to write a value in the same way, whatever roles, databases and files of settings are set to.
fixed="-c datestyle=ISO,MDY -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=1 -c timezone=UTC"
fixed="$fixed -c lc_monetary=C -c search_path=pg_catalog -c row_security=off -c standard_conforming_strings=on"
fixed="$fixed -c jit=off -c max_parallel_workers_per_gather=0 -c lock_timeout=2s -c synchronous_commit=local"
export PGOPTIONS="$fixed -c statement_timeout=${LIMIT}s -c default_transaction_read_only=on"
fail() { echo "$1: $2" >&2; exit 3; }
later() { echo "Transient: $1" >&2; exit 75; }
at="the database $DBNAME at port $PORT"
psql() { # $1 SQL
    printf '%s\n' "$1" | timeout "$((LIMIT + 2))" "$BIN/psql" -wXAtq -F "$(printf '\t')" -h "$SOCKETS" -p "$PORT" -U "$DBUSER" \
        -d "$DBNAME" -v ON_ERROR_STOP="$STOP" -v VERBOSITY=sqlstate -f -
}
ask() { # $1 SQL; 1 where a standby cancelled it, because that stood in the way of what it replays
    { error=$(psql "$1" 2>&1 >&3); how=$?; } 3>&1
    [ "$how" != 0 ] || return 0
    line=$(printf '%s' "$error" | tr '\n' ' ' | tail -c 200)
    case $how:$line in
        *' 40001'* | *' 40P01'*) return 1 ;;
        124:* | *' 57014'*) later "$at does not answer within $LIMIT s" ;;
        *' 55P03'*) later "$at: a table is locked" ;;
        *' 42501'*) fail Refused "$at does not let this login ($DBUSER) read so" ;;
        *' 42P01'* | *' 42703'*) later "$at: a table or column has just been taken away" ;;
        *'No such file'* | *refused* | *'timeout expired'*) later "$at cannot be reached; does it run?" ;;
        126:* | 127:*) fail Fatal "$BIN/psql cannot be run" ;;
        *'starting up'* | *'shutting down'* | *'recovery mode'* | *'accepting conn'* | *'too many'* | *' 57P0'* | *'closed the conn'*)
            later "$at is not open: $line" ;;
        *FATAL*) fail Refused "$at does not let this login ($DBUSER) in: $line" ;;
        2:*) later "$at cannot be reached: $line" ;;
        *) fail Refused "$at does not answer that: $line" ;;
    esac
}
position="select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end - '0/0')::bigint"
began=$(date +%s) reached=0 waited=no
while [ "$UPTO" != 0 ]; do
    reached=$(ask "$position")
    how=$?
    [ "$how" -le 1 ] || exit "$how" # it has said why
    [ "${reached:-0}" -lt "$UPTO" ] && [ $(($(date +%s) - began)) -le "$PATIENCE" ] || break # whole seconds: not less
    waited=yes
    sleep 0.02
done
printf 'reached\t%s\t%s\n' "${reached:-0}" "$waited"
began=$(date +%s)
until ask "$SQL"; do
    [ $(($(date +%s) - began)) -lt "$LIMIT" ] || later "$at: what it replays cancels each question (max_standby_streaming_delay)"
    printf 'again\n'
    sleep 0.1
done
