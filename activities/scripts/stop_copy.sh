# Stop the server of COPY, if it runs, at once: nothing in it is worth a checkpoint.
export LC_ALL=C
if "$BIN/pg_ctl" -D "$COPY/data" status >/dev/null 2>&1; then
    "$BIN/pg_ctl" -D "$COPY/data" -m immediate -w -t 60 stop >/dev/null 2>&1
fi
