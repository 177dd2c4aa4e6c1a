# Stop the server of COPY, if it runs, at once: nothing in it is worth a checkpoint.
export LC_ALL=C
if "$BIN/pg_ctl" -D "$COPY/data" status >/dev/null 2>&1; then
    "$BIN/pg_ctl" -D "$COPY/data" -m immediate -w -t 60 stop >/dev/null 2>&1
fi
# One that is only just being started has no pid file yet: it would run on in a copy that is taken for stopped.
tries=0
while left=$(grep -lszxF "RECOVERY_COPY=$COPY" /proc/[0-9]*/environ | cut -d/ -f3) && [ -n "$left" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 500 ] || { echo "Transient: the copy's server does not end" >&2; exit 75; }
    kill -QUIT $left 2>/dev/null
    sleep 0.02
done
