# Lay BACKUP down as COPY, checked file by file against its manifest, set up to replay to TARGET and pause there.
# Of an incremental backup BACKUP is the whole chain, the full one first, one a line.
# Safe to run again at any point: an unfinished copy is laid down anew, a finished one is moved into place at once.
. ./fetching.sh
set -eu
umask 077
export LC_ALL=C
fail() { echo "$1: $2" >&2; exit 3; }
escaped() { printf '%s' "$1" | sed 's/[\\=]/\\&/g'; } # as pg_combinebackup reads a folder's name
part=$COPY.partial
[ ! -e "$COPY" ] || fail Drifted "$COPY stands there already"
if [ -e "$part" ]; then
    [ ! -s "$part/owner" ] || [ "$(cat "$part/owner")" = "$OWNER" ] || fail Drifted "$part belongs to another recovery"
    rm -rf "$part"
fi
mkdir "$part"
printf '%s' "$OWNER" >"$part/owner"
mkdir "$part/run"
backup=$(printf '%s\n' "$BACKUP" | tail -n 1)
checked() { # $1 a backup or what was made of it, $2 whose fault it would be
    said=$("$BIN/pg_verifybackup" -n -q -e "$1" 2>&1) ||
        fail Fatal "the backup ${2##*/} does not match its manifest: $(printf '%s' "$said" | head -n 1)"
}
laid() { # what a program that laid files down said, where it failed
    why=$(printf '%s' "$said" | tail -n 1)
    case $said in
        *"No space left"*)
            rm -rf "$part/data" "$part/spaces" # a full disk would not even let this be undone
            fail Fatal "the disk is full; free room under $(dirname "$COPY")"
            ;;
        *"Permission denied"* | *"No such file"*) fail Fatal "the backup ${backup##*/} cannot be read: $why" ;;
    esac
    fail Transient "the backup could not be copied: $why"
}
spaces() { # the tablespaces of the backup that are not in its own folder: their numbers
    for link in "$backup"/pg_tblspc/*; do [ ! -L "$link" ] || printf '%s\n' "${link##*/}"; done
}
[ -z "$(spaces)" ] || mkdir "$part/spaces"
if [ "$backup" = "$BACKUP" ]; then
    said=$(cp -a --reflink=auto "$backup" "$part/data" 2>&1) || laid
    for space in $(spaces); do
        said=$(cp -a --reflink=auto "$backup/pg_tblspc/$space/." "$part/spaces/$space" 2>&1) || laid
        ln -sfn "$part/spaces/$space" "$part/data/pg_tblspc/$space"
    done
else # a chain: each is checked before they are put together, which reads parts of each
    set --
    for space in $(spaces); do
        set -- "$@" --tablespace-mapping "$(escaped "$(readlink "$backup/pg_tblspc/$space")")=$(escaped "$part/spaces/$space")"
    done
    while read -r one; do
        checked "$one" "$one"
        set -- "$@" "$one"
    done <<CHAIN
$BACKUP
CHAIN
    said=$("$BIN/pg_combinebackup" -o "$part/data" "$@" 2>&1) || laid
fi
chmod 700 "$part/data"
if [ -L "$part/data/pg_wal" ]; then # the log of a backup taken with --waldir stays where it is
    rm "$part/data/pg_wal"
    mkdir "$part/data/pg_wal"
fi
checked "$part/data" "$backup"
for space in $(spaces); do ln -sfn "$COPY/spaces/$space" "$part/data/pg_tblspc/$space"; done
fetcher "$("$BIN/pg_controldata" -D "$part/data" | sed -n 's/^Bytes per WAL segment: *//p')" >"$part/fetch"
# The links of tablespaces are set; a map, which a backup of the form tar has, would set them back.
rm -f "$part/data/recovery.signal" "$part/data/postmaster.pid" "$part/data/tablespace_map"
# A copy must not archive, not replicate, not be found by clients of the original, and not reach its files.
cat >>"$part/data/postgresql.auto.conf" <<CONF
archive_mode = 'off'
archive_command = ''
archive_library = ''
archive_cleanup_command = ''
recovery_end_command = ''
primary_conninfo = ''
primary_slot_name = ''
synchronous_standby_names = ''
recovery_min_apply_delay = '0'
listen_addresses = '127.0.0.1'
port = '$COPYPORT'
unix_socket_directories = '$COPY/run'
external_pid_file = ''
data_directory = '$COPY/data'
hba_file = '$COPY/data/pg_hba.conf'
ident_file = '$COPY/data/pg_ident.conf'
logging_collector = 'off'
log_destination = 'stderr'
cluster_name = 'copy'
lc_messages = 'C'
default_transaction_read_only = 'on'
hot_standby = 'on'
huge_pages = 'off'
shared_buffers = '64MB'
wal_retrieve_retry_interval = '100ms'
restore_command = 'sh "$COPY/fetch" "%f" "%p"'
recovery_target = ''
recovery_target_name = ''
recovery_target_xid = ''
recovery_target_lsn = ''
recovery_target_time = ''
recovery_target_$KIND = '$(printf '%s' "$TARGET" | sed "s/'/''/g")'
recovery_target_inclusive = '$INCLUSIVE'
recovery_target_timeline = '$TIMELINE'
recovery_target_action = 'pause'
CONF
: >"$part/data/standby.signal" # as a standby it waits for more log instead of giving up before the target
printf '%s' "${backup##*/}" >"$part/backup"
mv "$part" "$COPY"
