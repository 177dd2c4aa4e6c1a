# Make the standby in DATA a primary, once it has all that the primary before it had: up to its shutdown at LAST.
# Then it has to take a row of the engine's own, and give it back.
. ./running.sh
[ -n "$(postmaster "$(identity "$DATA")")" ] || fail Fatal "the server of $DATA is not running; see its log"
# One question for all, because clients are shut out.
told=$(ask "select pg_is_in_recovery(),
    coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) > '$LAST'::pg_lsn, false),
    upper(lpad(to_hex(greatest(timeline_id, min_recovery_end_timeline)), 8, '0'))
    from pg_control_checkpoint(), pg_control_recovery()") || later "the server of $DATA does not answer"
case $told in
    f\|*) [ -e "$COPY/kept/promoted" ] || fail Drifted "somebody else promoted the database in $DATA" ;;
    t\|f\|*) fail Refused "the primary before it ended at $LAST, which it has not received: some of it would be lost" ;;
    *)
        # Whatever it archives from here on is of a later timeline than this.
        [ -e "$COPY/kept/timeline" ] || remember timeline "${told##*|}"
        remember promoted "$OWNER"
        # pg_ctl itself looks ten times a second whether it is done.
        "$BIN/pg_ctl" -D "$DATA" -W promote >/dev/null 2>&1 || later "the server of $DATA does not take the order" ;;
esac
before=$(cat "$COPY/kept/timeline")
waits="do 'begin for turn in 1..2000 loop exit when not pg_is_in_recovery(); perform pg_sleep(0.01); end loop; end'"
line="case when not pg_is_in_recovery() then substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end"
since=$(date +%s)
until now=$(ask "$waits" "select $line" 2>/dev/null) && [ -n "$now" ]; do
    [ $(($(date +%s) - since)) -lt 120 ] || later "it is not promoted within 2 min"
    sleep 0.05
done
expr "$now" '>' "$before" >/dev/null || fail Fatal "it was promoted, and is still on timeline $now"
# Local: where every commit waits for a standby, there is none yet.
export PGOPTIONS='-c default_transaction_read_only=off -c session_replication_role=replica -c lock_timeout=10s -c synchronous_commit=local'
try "the promoted database"
remember written "$canary"
