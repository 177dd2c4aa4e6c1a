# Make the database in DATA, which was stopped for good, a standby of the one at UPSTREAM.
. ./running.sh
. ./standing_by.sh
keep_settings
[ "$(streams)" = 1 ] || rejoin
await_stream
rm -rf "$COPY"
