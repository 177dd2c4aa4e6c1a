# Lay BACKUP down as COPY, checked file by file against its manifest, set up to replay to TARGET and pause there.
# Safe to run again at any point: an unfinished copy is laid down anew, a finished one is moved into place at once.
. ./paced.sh
set -eu
umask 077
export LC_ALL=C
fail() { echo "$1: $2" >&2; exit 3; }
part=$COPY.partial
[ ! -e "$COPY" ] || fail Drifted "$COPY stands there already"
if [ -e "$part" ]; then
    [ ! -s "$part/owner" ] || [ "$(cat "$part/owner")" = "$OWNER" ] || fail Drifted "$part belongs to another recovery"
    rm -rf "$part"
fi
mkdir "$part"
printf '%s' "$OWNER" >"$part/owner"
mkdir "$part/run"
if ! said=$(paced "$TOTAL" "$part" cp -a --reflink=auto "$BACKUP" "$part/data" 2>&1); then
    why=$(printf '%s' "$said" | tail -n 1)
    case $said in
        *"No space left"*)
            rm -rf "$part/data" # a full disk would not even let this be undone
            fail Fatal "the disk is full; free room under $(dirname "$COPY")"
            ;;
        *"Permission denied"* | *"No such file"*) fail Fatal "the backup ${BACKUP##*/} cannot be read: $why" ;;
    esac
    fail Transient "the backup could not be copied: $why"
fi
chmod 700 "$part/data"
if [ -L "$part/data/pg_wal" ]; then # the log of a backup taken with --waldir stays where it is
    rm "$part/data/pg_wal"
    mkdir "$part/data/pg_wal"
fi
said=$("$BIN/pg_verifybackup" -n -q -e "$part/data" 2>&1) ||
    fail Fatal "the backup ${BACKUP##*/} does not match its manifest: $(printf '%s' "$said" | head -n 1)"
# Log comes from the archive, else from what the running database has not archived yet; a file cut short is no log.
size=$("$BIN/pg_controldata" -D "$part/data" | sed -n 's/^Bytes per WAL segment: *//p')
cat >"$part/fetch" <<FETCH
for folder in "$ARCHIVE" "$DATA/pg_wal"; do
    case \$1 in
        *.history) [ -f "\$folder/\$1" ] ;;
        *) [ "\$(stat -c %s "\$folder/\$1" 2>/dev/null)" = "$size" ] ;;
    esac && cp "\$folder/\$1" "\$2" && exit 0
done
exit 1
FETCH
rm -f "$part/data/recovery.signal" "$part/data/postmaster.pid"
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
recovery_target_time = '$TARGET'
recovery_target_inclusive = 'on'
recovery_target_timeline = '$TIMELINE'
recovery_target_action = 'pause'
CONF
: >"$part/data/standby.signal" # as a standby it waits for more log instead of giving up before the target
printf '%s' "${BACKUP##*/}" >"$part/backup"
mv "$part" "$COPY"
