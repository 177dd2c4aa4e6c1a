# Tell the time of the last commit in the log, and where its last record begins.
# It looks at SEGMENTS, newest first, until one holds a commit. Changes nothing.
export LC_ALL=C TZ=UTC
. ./reading.sh
record=
for segment in $SEGMENTS; do
    bring "$segment" || continue
    file=$TIMELINE${segment#????????}
    if [ -z "$record" ]; then
        record=$("$BIN/pg_waldump" -p . "$file" "$file" 2>/dev/null | tail -n 1 | sed -n 's/.* lsn: \([0-9A-F/]*\), .*/\1/p')
        [ -z "$record" ] || printf 'record\t%s\n' "$record"
    fi
    at=$("$BIN/pg_waldump" -p . --rmgr=Transaction "$file" "$file" 2>/dev/null |
        grep -o ' COMMIT [0-9-]* [0-9:.]*' | tail -n 1)
    rm -f "$file"
    [ -z "$at" ] || { printf 'commit\t%s\n' "${at# COMMIT }"; exit 0; }
done
