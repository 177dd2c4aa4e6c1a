# Tell the first commit in the running database's own log (in DATA) from segment NEXT on. Changes nothing.
export LC_ALL=C TZ=UTC
[ -d "$DATA/pg_wal" ] && [ -r "$DATA/pg_wal" ] || exit 0
printf 'log\tread\n'
[ -f "$DATA/pg_wal/$NEXT" ] || exit 0 # it is made when the first record of it is written
at=$("$BIN/pg_waldump" -p "$DATA/pg_wal" --rmgr=Transaction "$NEXT" 2>/dev/null | grep -o -m 1 ' COMMIT [0-9-]* [0-9:.]*')
[ -z "$at" ] || printf 'commit\t%s\n' "${at# COMMIT }"
