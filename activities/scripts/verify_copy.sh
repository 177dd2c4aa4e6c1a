# Prove the copy in COPY: its heaps and indexes, and the runbook's own questions (QUERY_1 … QUERY_n). Read only.
export LC_ALL=C PGCONNECT_TIMEOUT=5 PGOPTIONS='-c default_transaction_read_only=on -c lock_timeout=30s'
ask() { "$BIN/psql" -wXAtq -h "$COPY/run" -p "$COPYPORT" -U "$DBUSER" -d "$DBNAME" -v ON_ERROR_STOP=1 -c "$1"; }
if [ "$AMCHECK" = yes ]; then
    said=$("$BIN/pg_amcheck" -w -h "$COPY/run" -p "$COPYPORT" -U "$DBUSER" -d "$DBNAME" 2>&1)
    printf 'amcheck\t%s\t%s\n' "$?" "$(printf '%s' "$said" | head -n 1 | tr '\t' ' ')"
fi
i=1
while [ "$i" -le "$QUERIES" ]; do
    eval "sql=\$QUERY_$i"
    # Warnings are no answers: what psql complains of is told only when there is none.
    if said=$(ask "$sql" 2>/dev/null); then status=0; else status=$? said=$(ask "$sql" 2>&1 >/dev/null); fi
    printf 'query\t%s\t%s\t%s\n' "$i" "$status" "$(printf '%s' "$said" | head -c 200 | tr '\t\n' '  ')"
    i=$((i + 1))
done
