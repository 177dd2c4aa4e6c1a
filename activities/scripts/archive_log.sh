# Try the restored database with a row of the engine's own, let it archive again as the running one did,
# and wait until the beginning of its own timeline is in the archive.
. ./running.sh
. ./backups.sh
kept=$COPY/kept
export PGOPTIONS='-c default_transaction_read_only=off -c session_replication_role=replica -c lock_timeout=10s'
copy=$(cat "$kept/copy" 2>/dev/null) timeline=$(cat "$kept/timeline" 2>/dev/null)
[ -n "$copy" ] && [ "$(identity "$DATA")" = "$copy" ] || fail Drifted "what stands at $DATA is not the restored copy"
if [ ! -e "$kept/archiving" ]; then
    take_in
    foreign=$(in_archive "$timeline") || exit
    [ -z "$foreign" ] || fail Drifted "somebody else archived timeline $timeline: $(echo "$foreign" | head -n 1)"
    remember archiving "$timeline"
fi
try "the restored database"
cmp -s "$FENCED/postgresql.auto.conf" "$DATA/postgresql.auto.conf" || keep "$FENCED/postgresql.auto.conf" "$DATA/postgresql.auto.conf"
reread
since=$(ask 'select failed_count from pg_stat_archiver') || later 'the restored database does not answer'
segment=$(ask 'select pg_walfile_name(pg_current_wal_lsn())') || later 'the restored database does not answer'
# What was written while the copy archived nothing: its history, and each segment that is complete.
status=$DATA/pg_wal/archive_status
for file in "$DATA/pg_wal/$timeline.history" "$DATA/pg_wal/$timeline"????????????????; do
    name=${file##*/}
    [ -e "$file" ] || continue
    case $name in *.history) ;; *) expr "$name" '<' "$segment" >/dev/null || continue ;; esac
    [ -e "$status/$name.done" ] || : >"$status/$name.ready" || later "nothing can be written into $DATA: is the disk full?"
done
# Its switch wakes the archiver; without a record since the last one it would do nothing.
ask "select pg_logical_emit_message(false, 'recovery', 'archive')" >/dev/null &&
    last=$(ask 'select pg_walfile_name(pg_switch_wal())') || later 'the restored database does not answer'
began=$(date +%s)
arrived() { # whether the history of its timeline, and the segment that ended last, are in the archive
    [ ! -e "$status/$last.ready" ] || return
    take_in
    in_archive "$timeline" >"$kept/arrived" || exit
    grep -qxF "$timeline.history" "$kept/arrived" && grep -qxF "$last" "$kept/arrived"
}
until arrived; do
    failed=$(ask "select last_failed_wal from pg_stat_archiver where failed_count > ${since:-0} + 2")
    [ -z "$failed" ] || fail Fatal "archive_command fails for $failed; look into the server's log"
    [ $(($(date +%s) - began)) -lt 60 ] || later "$timeline.history or $last is not in the archive after a minute"
    sleep 0.1
done
rm -f "$kept/arrived"
