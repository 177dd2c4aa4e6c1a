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
[ -r "$DATA/global/pg_control" ] || for b in "$BACKUPS"/*/; do [ ! -r "$b/global/pg_control" ] || control=$b; done
told=$("$BIN/pg_controldata" -D "$control" 2>/dev/null)
printf '%s\n' "$told" | sed -n \
    -e 's/^Database system identifier: */system\t/p' -e "s/^Latest checkpoint's TimeLineID: */timeline\t/p" \
    -e 's/^Bytes per WAL segment: */segment\t/p'
size=$(printf '%s\n' "$told" | sed -n 's/^Bytes per WAL segment: *//p')
[ -d "$BACKUPS" ] && [ -r "$BACKUPS" ] || printf 'fault\tbackups: the folder cannot be read\n'
[ -d "$ARCHIVE" ] && [ -r "$ARCHIVE" ] || printf 'fault\tarchive: the folder cannot be read\n'
for b in "$BACKUPS"/*/; do
    b=${b%/}
    [ -d "$b" ] || continue
    say() { printf 'backup\t%s\t%s\t%s\n' "${b##*/}" "$1" "$2"; }
    say path "$b"
    say version "$(cat "$b/PG_VERSION" 2>/dev/null)"
    kbytes=$(du -sk "$b" 2>/dev/null | cut -f1) spaces=0 gone= original=
    for link in "$b"/pg_tblspc/*; do
        [ -e "$link" ] || [ -L "$link" ] || continue
        spaces=$((spaces + 1))
        [ -L "$link" ] || continue
        [ -d "$link/" ] || gone="$gone${link##*/} "
        [ "$(readlink -f "$link")" != "$(readlink -f "$DATA/pg_tblspc/${link##*/}")" ] || original="$original${link##*/} "
        more=$(du -sk "$link/" 2>/dev/null | cut -f1)
        kbytes=$((${kbytes:-0} + ${more:-0}))
    done
    say kbytes "$kbytes"
    say tablespaces "$spaces"
    say gone "$gone"
    say original "$original"
    say system "$(grep -o -m1 '"System-Identifier": [0-9]*' "$b/backup_manifest" 2>/dev/null | grep -o '[0-9]*$')"
    say stop_lsn "$(grep -o '"End-LSN": "[0-9A-F/]*"' "$b/backup_manifest" 2>/dev/null | tail -n 1 | cut -d'"' -f4)"
    start=$(sed -n 's/^START WAL LOCATION: //p' "$b/backup_label" 2>/dev/null)
    say start_lsn "${start%% *}"
    say timeline "$(sed -n 's/^START TIMELINE: //p' "$b/backup_label" 2>/dev/null)"
    say incremental "$(sed -n 's/^INCREMENTAL FROM LSN: //p' "$b/backup_label" 2>/dev/null)"
    say parent "$(sed -n 's/^INCREMENTAL FROM TLI: //p' "$b/backup_label" 2>/dev/null)"
    # The end of a backup stands in the archive; its manifest is written after that, so its time is no earlier.
    file=$(printf '%s' "$start" | sed -n 's/.*(file \([0-9A-F]*\)).*/\1/p')
    history=$(grep -lF "START WAL LOCATION: $start" "$ARCHIVE/$file".*.backup 2>/dev/null | tail -n 1)
    stop=$(sed -n 's/^STOP TIME: //p' "$history" 2>/dev/null)
    say stopped "$([ -n "$stop" ] && date -d "$stop" +%s || stat -c %Y "$b/backup_manifest" 2>/dev/null)"
done
branches() { # $1 where the file $3 is, $2 its name: what each of its lines says
    awk -v where="$1" -v name="${2%.history}" -F '\t' '
        { sub(/\r$/, "") } /^[ \t]*(#|$)/ { next }
        { many++; print "history\t" where "\t" name "\t" ($1 ~ /^[0-9]+$/ ? $1 : "?") "\t" ($2 ~ /^[0-9A-F]+\/[0-9A-F]+$/ ? $2 : "?") }
        END { if (!many) print "history\t" where "\t" name "\t?\t?" }' "$3"
}
if [ -z "$RESTORE" ]; then
    find "$ARCHIVE" -maxdepth 1 -type f -printf 'wal\tarchive\t%f\t%s\n' 2>/dev/null
    for file in "$ARCHIVE"/????????.history; do
        [ ! -f "$file" ] || branches archive "${file##*/}" "$file"
    done
else # what lies there has more to its name, and is another size: what it holds the command knows
    find "$ARCHIVE" -maxdepth 1 -type f -printf '%f\n' 2>/dev/null | sort |
        sed -nE '/\.(partial|backup|tmp)(\.|$)/d; s/^([0-9A-F]{24})(\.[A-Za-z0-9]+)*$/wal\tarchive\t\1\t'"${size:-0}"'/p'
    folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && fetcher "$size" >"$folder/fetch" && cd "$folder" &&
        find "$ARCHIVE" -maxdepth 1 -type f -name '????????.history*' -printf '%f\n' | cut -c1-16 | sort -u |
        while read -r name; do
            if sh ./fetch "$name" it >/dev/null 2>&1; then branches archive "$name" it; else branches archive "$name" /dev/null; fi
        done
fi
for file in "$DATA"/pg_wal/????????.history; do
    [ ! -f "$file" ] || branches live "${file##*/}" "$file"
done
find "$DATA/pg_wal" -maxdepth 1 -type f -printf 'wal\tlive\t%f\t%s\n' 2>/dev/null
printf 'now\t%s\n' "$(date +%s.%N)"
