# Make the standby in DATA a primary, once it has all that the primary before it had: up to its shutdown at LAST.
. ./running.sh
[ -n "$(postmaster "$(identity "$DATA")")" ] || fail Fatal "the server of $DATA is not running; see its log"
recovering=$(ask 'select pg_is_in_recovery()') || later "the server of $DATA does not answer"
[ "$recovering" = t ] || exit 0
ends=$(ask "select pg_last_wal_receive_lsn() > '$LAST'::pg_lsn") || later "the server of $DATA does not answer"
[ "$ends" = t ] || fail Refused "the primary before it ended at $LAST, which it has not received: some of it would be lost"
remember promoted "$OWNER"
before=$(ask 'select timeline_id from pg_control_checkpoint()') || later "the server of $DATA does not answer"
"$BIN/pg_ctl" -D "$DATA" -w -t 120 promote >/dev/null 2>&1 || later "it is not promoted within 2 min"
until [ "$(ask 'select pg_is_in_recovery()' 2>/dev/null)" = f ]; do sleep 0.05; done
now=$(ask "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int")
[ "$now" -gt "$before" ] || fail Fatal "it was promoted, and is still on timeline $now"
