# Take a base backup of the database at SOCKETS into BACKUP, checked against its manifest; its log is in the archive.
. ./running.sh
[ ! -e "$BACKUP" ] || fail Drifted "$BACKUP stands there already"
rm -rf "$BACKUP.partial"
said=$("$BIN/pg_basebackup" -w -D "$BACKUP.partial" -h "$SOCKETS" -p "$PORT" -U "$DBUSER" --checkpoint=fast \
    --wal-method=none --no-slot --label="$LABEL" 2>&1) || {
    why=$(printf '%s\n' "$said" | grep -E 'error|FATAL' | head -n 1)
    rm -rf "$BACKUP.partial"
    case $said in
        *'No space left'*) fail Fatal "the disk is full; free room under $(dirname "$BACKUP")" ;;
        *'no pg_hba.conf entry'* | *'authentication failed'* | *'must be superuser'* | *'permission denied'*)
            fail Refused "no base backup can be taken: $why" ;;
    esac
    later "the base backup failed: ${why:-$said}"
}
said=$("$BIN/pg_verifybackup" -n -q -e "$BACKUP.partial" 2>&1) ||
    later "the base backup does not match its manifest: $(printf '%s' "$said" | head -n 1)"
mv -T "$BACKUP.partial" "$BACKUP"
