# Compare the copy in COPY with the running database, table by table and row by row. Reads both, changes neither.
. ./ranges.sh
export LC_ALL=C PGCONNECT_TIMEOUT=5 PGOPTIONS='-c default_transaction_read_only=on -c lock_timeout=30s'
copy() { "$BIN/psql" -wXAtq -h "$COPY/run" -p "$COPYPORT" -U "$DBUSER" -d "$DBNAME" -v ON_ERROR_STOP=1 -c "$1"; }
live() { "$BIN/psql" -wXAtq -h "$SOCKETS" -p "$PORT" -U "$DBUSER" -d "$DBNAME" -v ON_ERROR_STOP=1 -c "$1"; }
rm -rf "$COPY"/compare.* # what an interrupted comparison left
work=$(mktemp -d "$COPY/compare.XXXXXX") || exit 73
trap 'rm -rf "$work"' EXIT
all="select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^(pg_|information_schema\$)' order by 1"
live 'select 1' >/dev/null 2>"$work/error" || { printf 'down\t%s\n' "$(tr '\t\n' '  ' <"$work/error")"; exit 0; }
[ -n "$TABLES" ] || TABLES=$({ copy "$all"; live "$all"; } | sort -u)
rows() { # $1 where, $2 table, $3 file: the key and the digest of each row, sorted by key; 1 if there is no such table
    : >"$3"
    [ "$("$1" "select to_regclass(\$n\$$2\$n\$) is not null")" = t ] || return 1
    key=$("$1" "select string_agg(format('%I::text', a.attname), ' || chr(31) || ' order by a.attnum) from pg_index i
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
        where i.indisprimary and i.indrelid = to_regclass(\$n\$$2\$n\$)")
    "$1" "copy (select k, h from (select ${key:-md5(t::text)} as k, md5(t::text) as h from $2 t) rows
        order by k collate \"C\") to stdout" >"$3" 2>"$work/error" || {
        printf 'fault\t%s: %s\n' "$2" "$(head -n 1 "$work/error" | tr '\t' ' ')"
        return 1
    }
}
told() { # $1 file: its keys; a row without one has none to tell
    [ -z "$key" ] || sort -n "$work/$1" | TEXTS=3 ranges
}
set -f
IFS='
' # names may hold blanks
for table in $TABLES; do
    key=''
    rows copy "$table" "$work/copy" && in_copy=$(wc -l <"$work/copy") || in_copy=-1
    rows live "$table" "$work/live" && in_live=$(wc -l <"$work/live") || in_live=-1
    : >"$work/lost" && : >"$work/later" && : >"$work/changed" || exit 73
    counts=$(join -t "$(printf '\t')" -a 1 -a 2 -e '' -o 0,1.2,2.2 "$work/copy" "$work/live" | awk -F '\t' -v work="$work" '
        function tell(file) { if (gsub(/\037/, ",", $1)) $1 = "(" $1 ")"; print $1 >(work "/" file) }
        $3 == "" { lost++; tell("lost"); next }
        $2 == "" { later++; tell("later"); next }
        $2 != $3 { changed++; tell("changed") }
        END { printf "%d\t%d\t%d", lost, later, changed }')
    printf 'table\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$table" "$in_copy" "$in_live" "$counts" \
        "$(told lost)" "$(told later)" "$(told changed)"
done
