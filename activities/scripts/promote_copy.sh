# Make the copy in COPY a database of its own, into which nobody comes but DBUSER over its socket.
. ./running.sh
. ./backups.sh
DATA=$COPY/data SOCKETS=$COPY/run PORT=$COPYPORT
[ -n "$(postmaster "$(identity "$DATA")")" ] || fail Fatal "the copy's server is not running; look into $COPY/log"
guard
recovering=$(ask 'select pg_is_in_recovery()') || later 'the copy does not answer'
[ "$recovering" = t ] || [ -e "$COPY/promoted" ] || fail Drifted "somebody else has promoted the copy; restore again"
if [ "$recovering" = t ]; then
    : >"$COPY/promoted" # so that it can be told from a copy that somebody else promoted
    "$BIN/pg_ctl" -D "$DATA" -w -t 600 promote >/dev/null 2>&1 || later "the copy is not promoted: $(tail -n 1 "$COPY/log")"
fi
timeline=$(ask 'select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)') || later 'the copy does not answer'
# It was chosen by what the archive knew; another copy that was promoted before has it too, until one of them archives.
if [ ! -e "$COPY/kept/archiving" ]; then
    take_in
    foreign=$(in_archive "$timeline") || exit
    [ -z "$foreign" ] || fail Fatal "timeline $timeline is in the archive already: another recovery was faster; restore again"
fi
remember timeline "$timeline"
