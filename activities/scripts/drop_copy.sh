# Remove COPY, if it belongs to OWNER and its server is stopped.
# An empty name is that of a job that was killed before it had written it.
export LC_ALL=C
fail() { echo "$1: $2" >&2; exit 3; }
for folder in "$COPY" "$COPY.partial"; do
    [ -e "$folder" ] || continue
    [ ! -s "$folder/owner" ] || [ "$(cat "$folder/owner")" = "$OWNER" ] || fail Drifted "$folder belongs to another recovery"
    ! "$BIN/pg_ctl" -D "$folder/data" status >/dev/null 2>&1 || fail Drifted "a server still runs in $folder"
    if [ "$folder" = "$COPY" ]; then # from here on it is no copy that anybody could take for whole
        mv "$COPY" "$COPY.partial"
    fi
    rm -rf "$COPY.partial"
done
