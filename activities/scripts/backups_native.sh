# What there is of backups and log in folders of this host: BACKUPS that pg_basebackup made, plain and full or incremental,
# and the ARCHIVE of the log; and how they are laid down and fetched. RESTORE fetches a file of the log, if there is one.
. ./paced.sh
. ./flushing.sh
list_backups() {
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
}
# Lay the backup down in $2, and its tablespaces in folders of $3 by their number: $1 is its folder, of an incremental one
# those of the whole chain, the full one first, one a line. All of it is checked against its manifest.
lay_down() {
    chain=$1 backup=$(printf '%s\n' "$1" | tail -n 1) copy=$2 spaces=$3
    numbers=$(for link in "$backup"/pg_tblspc/*; do [ ! -L "$link" ] || printf '%s\n' "${link##*/}"; done)
    [ -z "$numbers" ] || mkdir -p "$spaces"
    if [ "$backup" = "$chain" ]; then
        said=$(paced "${TOTAL:-0}" "${copy%/*}" cp -a --reflink=auto "$backup" "$copy" 2>&1) || laid
        for number in $numbers; do
            said=$(paced "${TOTAL:-0}" "${copy%/*}" cp -a --reflink=auto "$backup/pg_tblspc/$number/." "$spaces/$number" 2>&1) || laid
            ln -sfn "$spaces/$number" "$copy/pg_tblspc/$number"
        done
    else
        set --
        for number in $numbers; do
            set -- "$@" --tablespace-mapping \
                "$(escaped "$(readlink "$backup/pg_tblspc/$number")")=$(escaped "$spaces/$number")"
        done
        while read -r one; do
            set -- "$@" "$one"
        done <<CHAIN
$chain
CHAIN
        # Each is checked beside: they are put together of parts of each, which get new checksums then.
        all_checked "$chain" &
        checks=$!
        failed=
        said=$(paced "${TOTAL:-0}" "${copy%/*}" "$BIN/pg_combinebackup" --no-sync -o "$copy" "$@" 2>&1) || failed=yes
        wait "$checks" || exit # damage is said before what comes of it
        [ -z "$failed" ] || laid
    fi
    chmod 700 "$copy"
    if [ -L "$copy/pg_wal" ]; then # the log of a backup taken with --waldir stays where it is
        rm "$copy/pg_wal"
        mkdir "$copy/pg_wal"
    fi
    flush "$copy" "$spaces" &
    flushing=$! wrong=
    (checked "$copy" "$backup") || wrong=$?
    flushed "$flushing"
    [ -z "$wrong" ] || exit "$wrong"
}
all_checked() { # $1 backups, one a line
    while read -r one; do
        checked "$one" "$one"
    done <<CHAIN
$1
CHAIN
}
checked() { # $1 a backup or what was made of it, $2 whose fault it would be
    said=$("$BIN/pg_verifybackup" -n -q -e "$1" 2>&1) ||
        fail Fatal "the backup ${2##*/} does not match its manifest: $(printf '%s' "$said" | head -n 1)"
}
laid() { # what a program that laid files down said, where it failed
    why=$(printf '%s' "$said" | tail -n 1)
    case $said in
        *"No space left"*)
            rm -rf "$copy" "$spaces" # a full disk would not even let this be undone
            fail Fatal "the disk is full; free room under $(dirname "$(dirname "$copy")")"
            ;;
        *"Permission denied"* | *"No such file"*) fail Fatal "the backup ${backup##*/} cannot be read: $why" ;;
    esac
    fail Transient "the backup could not be copied: $why"
}
escaped() { printf '%s' "$1" | sed 's/[\\=]/\\&/g'; } # as pg_combinebackup reads a folder's name
control_file() { :; } # only a tool asks for one, where that of the database is lost
fetch_command() {
    printf 'own=%s archive=%s\n' "$(quoted "$RESTORE")" "$(quoted "$ARCHIVE")"
    cat <<'FETCH'
if [ -n "$own" ]; then
    percent=$(printf '\001') # as PostgreSQL reads it: %% is a percent sign
    sh -c "$(printf '%s' "$own" | sed "s|%%|$percent|g; s|%f|$1|g; s|%p|$2|g; s|$percent|%|g")" </dev/null
elif whole "$1" "$archive/$1"; then
    ${3:-cp} "$archive/$1" "$2"
else
    exit 1
fi
FETCH
}
in_archive() { # names of what the archive has of the timeline $1 (eight digits), but for the endings of its own
    for file in "$ARCHIVE/$1"*; do [ ! -e "$file" ] || printf '%s\n' "${file##*/}"; done |
        if [ -n "$RESTORE" ]; then sed -E '/\.(partial|backup|tmp)(\.|$)/b; s/^([0-9A-F]{24}|[0-9A-F]{8}\.history)(\.[A-Za-z0-9]+)+$/\1/'; else cat; fi
}
take_in() { :; } # what the database has archived is in the archive
forget_archived() { rm -f "$ARCHIVE/$1"* "$ARCHIVE/.$1"*; } # all of the timeline $1
no_backup() { :; } # why the next one could not be taken, a line each; of this kind the database itself tells
# Take a base backup into BACKUP, checked against its manifest; its log is in the archive.
take_backup() {
    [ ! -e "$BACKUP" ] || fail Drifted "$BACKUP stands there already"
    rm -rf "$BACKUP.partial"
    said=$("$BIN/pg_basebackup" -w -D "$BACKUP.partial" -h "$SOCKETS" -p "$PORT" -U "$DBUSER" --checkpoint=fast \
        --wal-method=none --no-slot --label="$LABEL" 2>&1) || not_taken
    said=$("$BIN/pg_verifybackup" -n -q -e "$BACKUP.partial" 2>&1) ||
        later "the base backup does not match its manifest: $(printf '%s' "$said" | head -n 1)"
    mv -T "$BACKUP.partial" "$BACKUP"
}
not_taken() { # what pg_basebackup said
    why=$(printf '%s\n' "$said" | grep -E 'error|FATAL' | head -n 1)
    rm -rf "$BACKUP.partial"
    case $said in
        *'No space left'*) fail Fatal "the disk is full; free room under $(dirname "$BACKUP")" ;;
        *'no pg_hba.conf entry'* | *'authentication failed'* | *'must be superuser'* | *'permission denied'*)
            fail Refused "no base backup can be taken: $why" ;;
    esac
    later "the base backup failed: ${why:-$said}"
}
backup_taken() {
    [ ! -e "$BACKUP" ] || printf 'backup\t%s\nlabel\t%s\n' "${BACKUP##*/}" "$(sed -n 's/^LABEL: //p' "$BACKUP/backup_label" 2>/dev/null)"
    [ ! -e "$BACKUP.partial" ] || printf 'partial\tyes\n'
}
drop_taken() { # only if its LABEL is this recovery's
    if [ -e "$BACKUP" ]; then
        grep -qxF "LABEL: $LABEL" "$BACKUP/backup_label" || fail Drifted "$BACKUP is another backup"
        mv -T "$BACKUP" "$BACKUP.partial" # from here on it is no backup that anybody could take for whole
    fi
    rm -rf "$BACKUP.partial"
}
