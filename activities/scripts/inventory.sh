# Tell what backups and which WAL there are for the database in DATA. Changes nothing.
export LC_ALL=C TZ=UTC PGCONNECT_TIMEOUT=5 PGOPTIONS='-c default_transaction_read_only=on -c statement_timeout=20s'
ask() {
    "$BIN/psql" -wXAtq -h "$SOCKETS" -p "$PORT" -U "$DBUSER" -d "$DBNAME" -v ON_ERROR_STOP=1 -c "
        select json_build_object(
            'now', clock_timestamp(), 'flush_lsn', pg_current_wal_flush_lsn(),
            'timeline', ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int,
            'archiving', current_setting('archive_mode') <> 'off',
            'amcheck', exists (select from pg_extension where extname = 'amcheck'))"
}
# Warnings are no answers: what psql complains of is told only when there is none.
if live=$(ask 2>/dev/null); then
    printf 'live\t%s\n' "$live"
else
    printf 'down\t%s\n' "$(ask 2>&1 >/dev/null | tr '\t\n' '  ')"
fi
control=$DATA # where that is lost, the newest backup knows as much
[ -r "$DATA/global/pg_control" ] || for b in "$BACKUPS"/*/; do [ ! -r "$b/global/pg_control" ] || control=$b; done
"$BIN/pg_controldata" -D "$control" 2>/dev/null | sed -n \
    -e 's/^Database system identifier: */system\t/p' -e "s/^Latest checkpoint's TimeLineID: */timeline\t/p" \
    -e 's/^Bytes per WAL segment: */segment\t/p'
[ -d "$BACKUPS" ] && [ -r "$BACKUPS" ] || printf 'fault\tbackups: the folder cannot be read\n'
[ -d "$ARCHIVE" ] && [ -r "$ARCHIVE" ] || printf 'fault\tarchive: the folder cannot be read\n'
for b in "$BACKUPS"/*/; do
    b=${b%/}
    [ -d "$b" ] || continue
    say() { printf 'backup\t%s\t%s\t%s\n' "${b##*/}" "$1" "$2"; }
    say path "$b"
    say version "$(cat "$b/PG_VERSION" 2>/dev/null)"
    say kbytes "$(du -sk "$b" 2>/dev/null | cut -f1)"
    say tablespaces "$(ls -A "$b/pg_tblspc" 2>/dev/null | wc -l)"
    say system "$(grep -o -m1 '"System-Identifier": [0-9]*' "$b/backup_manifest" 2>/dev/null | grep -o '[0-9]*$')"
    say stop_lsn "$(grep -o '"End-LSN": "[0-9A-F/]*"' "$b/backup_manifest" 2>/dev/null | cut -d'"' -f4)"
    start=$(sed -n 's/^START WAL LOCATION: //p' "$b/backup_label" 2>/dev/null)
    say start_lsn "${start%% *}"
    say timeline "$(sed -n 's/^START TIMELINE: //p' "$b/backup_label" 2>/dev/null)"
    say incremental "$(sed -n 's/^INCREMENTAL FROM LSN: //p' "$b/backup_label" 2>/dev/null)"
    # The end of a backup stands in the archive; its manifest is written after that, so its time is no earlier.
    file=$(printf '%s' "$start" | sed -n 's/.*(file \([0-9A-F]*\)).*/\1/p')
    history=$(grep -lF "START WAL LOCATION: $start" "$ARCHIVE/$file".*.backup 2>/dev/null | tail -n 1)
    stop=$(sed -n 's/^STOP TIME: //p' "$history" 2>/dev/null)
    say stopped "$([ -n "$stop" ] && date -d "$stop" +%s || stat -c %Y "$b/backup_manifest" 2>/dev/null)"
done
find "$ARCHIVE" -maxdepth 1 -type f -printf 'wal\tarchive\t%f\t%s\n' 2>/dev/null
find "$DATA/pg_wal" -maxdepth 1 -type f -printf 'wal\tlive\t%f\t%s\n' 2>/dev/null
printf 'now\t%s\n' "$(date +%s.%N)"
