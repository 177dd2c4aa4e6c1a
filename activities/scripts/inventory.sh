# Tell what backups and which WAL there are for the database in DATA. Changes nothing.
. ./fetching.sh
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
[ -r "$DATA/global/pg_control" ] || [ -z "$BACKUPS" ] || for b in "$BACKUPS"/*/; do [ ! -r "$b/global/pg_control" ] || control=$b; done
told=$("$BIN/pg_controldata" -D "$control" 2>/dev/null)
printf '%s\n' "$told" | sed -n \
    -e 's/^Database system identifier: */system\t/p' -e "s/^Latest checkpoint's TimeLineID: */timeline\t/p" \
    -e 's/^Bytes per WAL segment: */segment\t/p'
size=$(printf '%s\n' "$told" | sed -n 's/^Bytes per WAL segment: *//p')
branches() { # $1 where the file $3 is, $2 its name: what each of its lines says
    awk -v where="$1" -v name="${2%.history}" -F '\t' '
        { sub(/\r$/, "") } /^[ \t]*(#|$)/ { next }
        { many++; print "history\t" where "\t" name "\t" ($1 ~ /^[0-9]+$/ ? $1 : "?") "\t" ($2 ~ /^[0-9A-F]+\/[0-9A-F]+$/ ? $2 : "?") }
        END { if (!many) print "history\t" where "\t" name "\t?\t?" }' "$3"
}
list_backups
for file in "$DATA"/pg_wal/????????.history; do
    [ ! -f "$file" ] || branches live "${file##*/}" "$file"
done
find "$DATA/pg_wal" -maxdepth 1 -type f -printf 'wal\tlive\t%f\t%s\n' 2>/dev/null
printf 'now\t%s\n' "$(date +%s.%N)"
