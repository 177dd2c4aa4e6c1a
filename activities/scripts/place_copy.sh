# Lay BACKUP down as COPY, checked file by file against its manifest, set up to replay to TARGET and pause there.
# Of an incremental backup BACKUP is the whole chain, the full one first, one a line; a tool of its own names it by one id.
# Safe to run again at any point: an unfinished copy is laid down anew, a finished one is moved into place at once.
. ./fetching.sh
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
lay_down "$BACKUP" "$part/data" "$part/spaces"
for link in "$part"/data/pg_tblspc/*; do
    [ ! -L "$link" ] || ln -sfn "$COPY/spaces/${link##*/}" "$link"
done
fetcher "$("$BIN/pg_controldata" -D "$part/data" | sed -n 's/^Bytes per WAL segment: *//p')" >"$part/fetch"
# The links of tablespaces are set; a map, which a backup of the form tar has, would set them back.
rm -f "$part/data/recovery.signal" "$part/data/postmaster.pid" "$part/data/tablespace_map"
# Of a server whose settings do not lie with its data there are none: it needs as much as the original had, no more.
if [ ! -e "$part/data/postgresql.conf" ]; then
    "$BIN/pg_controldata" -D "$part/data" | sed -nE 's/^(max_[a-z_]+) setting: *([0-9]+)$/\1 = \2/p' |
        sed 's/_xact/_transaction/; s/_xacts/_transactions/' >"$part/data/postgresql.conf"
fi
[ -e "$part/data/pg_hba.conf" ] || echo 'local all all trust' >"$part/data/pg_hba.conf" # the folder of its socket is ours alone
[ -e "$part/data/pg_ident.conf" ] || : >"$part/data/pg_ident.conf"
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
recovery_target_$KIND = '$(printf '%s' "$TARGET" | sed "s/[\\\\']/&&/g")'
recovery_target_inclusive = '$INCLUSIVE'
recovery_target_timeline = '$TIMELINE'
recovery_target_action = 'pause'
CONF
# Nobody takes backups of a copy.
[ "$(cut -d. -f1 "$part/data/PG_VERSION")" -lt 17 ] || echo "summarize_wal = 'off'" >>"$part/data/postgresql.auto.conf"
: >"$part/data/standby.signal" # as a standby it waits for more log instead of giving up before the target
printf '%s' "$BACKUP" | tail -n 1 | sed 's/.*\///' | tr -d '\n' >"$part/backup"
mv "$part" "$COPY"
