# Make the database in DATA the standby that it was, of the one at UPSTREAM; what it wrote meanwhile is discarded.
. ./running.sh
. ./standing_by.sh
[ -e "$COPY/kept/role" ] || exit 0
if [ "$(streams)" != 1 ]; then
    rejoin
    await_stream
fi
rm -rf "$COPY"
