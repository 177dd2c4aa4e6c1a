# Tell the time of the last commit in WAL: the newest of SEGMENTS (newest first) that holds one. Changes nothing.
export LC_ALL=C TZ=UTC
for segment in $SEGMENTS; do
    for folder in "$ARCHIVE" "$DATA/pg_wal"; do
        [ -f "$folder/$segment" ] || continue
        at=$("$BIN/pg_waldump" -p "$folder" --rmgr=Transaction "$segment" "$segment" 2>/dev/null |
            grep -o ' COMMIT [0-9-]* [0-9:.]*' | tail -n 1)
        [ -z "$at" ] || { printf '%s\n' "${at# COMMIT }"; exit 0; }
    done
done
