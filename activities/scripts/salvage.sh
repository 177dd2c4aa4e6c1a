# Export what the copy lacks, or has in another form, of the running database: every row, as CSV, into OUT.
# Rows are compared as the text that COPY makes of them, one a line, so that no table needs a key. Reads both only.
. ./running.sh
. ./ranges.sh
export PGOPTIONS="-c default_transaction_read_only=on -c lock_timeout=${LOCKWAIT:-30s} -c statement_timeout=0 -c search_path=pg_catalog
    -c lc_messages=C -c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=1 -c bytea_output=hex"
part=$OUT.partial
full() { fail Fatal "nothing can be written into $part: is the disk full? Free room under $(dirname "$OUT")"; }
[ ! -e "$OUT" ] || fail Drifted "$OUT stands there already"
[ ! -s "$part/owner" ] || [ "$(cat "$part/owner")" = "$OWNER" ] || fail Drifted "$part belongs to another recovery"
rm -rf "$part"
umask 077
mkdir -p "$part/scratch" && printf '%s' "$OWNER" >"$part/owner" || full
sql() { "$BIN/psql" -wXAtq -U "$DBUSER" -d "$DBNAME" -v ON_ERROR_STOP=1 -v VERBOSITY="${2:-default}" -c "$1"; }
live() { PGHOST=$SOCKETS PGPORT=$PORT sql "$@"; }
copy() { PGHOST=$COPY/run PGPORT=$COPYPORT sql "$@"; }
unread() { # $1 table of the running database; whether what stands in the way may pass is told by VERBOSITY=verbose
    [ "$(df --output=avail "$part" | tail -n 1)" -gt 0 ] || full
    said=$(grep -m 1 -E '^(ERROR|FATAL|PANIC): ' "$part/scratch/error" || tail -n 1 "$part/scratch/error")
    case $said in
        *:\ \ 08???:* | *:\ \ 40???:* | *:\ \ 53???:* | *:\ \ 55P03:* | *:\ \ 57???:*) ;; # cut off, out of memory, locked
        ERROR:*) fail Fatal "the rows of $1 cannot be read: $(printf '%s' "$said" | cut -c1-300)" ;;
    esac
    later "the rows of $1 cannot be read now: $(printf '%s' "$said" | cut -c1-300)"
}
note() { printf 'note\t%s\n' "$(printf '%s' "$1" | tr '\t\n' '  ' | cut -c1-300)" >>"$part/manifest.tsv" || full; }
printf 'kind\ttable\trows\tfile\tbytes\tsha256\tkeys\n' >"$part/manifest.tsv" || full
written() { live 'select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) from pg_stat_user_tables'; }
if ! before=$(written 2>"$part/scratch/error"); then
    why=$(tr '\t\n' '  ' <"$part/scratch/error")
    [ "$DOWN" = yes ] || later "the running database does not answer: $why"
    note "nothing was exported: the running database does not answer ($why); its rows are in its data directory"
    rm -r "$part/scratch" && mv -T "$part" "$OUT" || full
    exit 0
fi
copy 'select 1' >/dev/null 2>"$part/scratch/error" || later "the copy does not answer: $(head -n 1 "$part/scratch/error")"
# As CSV that COPY takes back: every value quoted, a null not. What is between backslashes is told piece by piece.
csv() { # $1 number of columns
    awk -F '\t' -v n="$1" '
        function told(text) { gsub(/"/, "\"\"", text); printf "%s", text }
        BEGIN { c["n"] = "\n"; c["t"] = "\t"; c["r"] = "\r"; c["b"] = "\b"; c["f"] = "\f"; c["v"] = "\v" }
        {
            for (i = 1; i <= n; i++) {
                if (i > 1) printf ","
                if ($i == "\\N") continue
                printf "\""
                pieces = split($i, piece, "\\")
                told(piece[1])
                for (k = 2; k <= pieces; k++) {
                    if (piece[k] == "") { # a backslash itself, and the piece after it is plain
                        printf "\\"
                        k++
                        if (k <= pieces) told(piece[k])
                        continue
                    }
                    printf "%s", c[substr(piece[k], 1, 1)]
                    told(substr(piece[k], 2))
                }
                printf "\""
            }
            printf "\n"
        }'
}
# shellcheck disable=SC2016
describe='select c.oid, quote_literal(format($f$%I.%I$f$, n.nspname, c.relname))::text from pg_class c'
tables=$(live "select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r'
    and c.relpersistence in ('p', 'u') and n.nspname !~ '^(pg_|information_schema\$)' order by n.nspname, c.relname") ||
    later 'the running database does not tell its tables'
if [ -n "$TABLES" ]; then
    list=$(printf '%s\n' "$TABLES" | sed "s/'/''/g; s/.*/to_regclass('&')/" | paste -sd, -)
    tables=$(live "select oid from pg_class where oid in ($list) order by 1") || later 'the tables of the runbook are not found'
fi
of() { # $1 what to tell of the columns of the table $table
    live "select $1 from pg_class c join pg_namespace n on n.oid = c.relnamespace
        left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        where c.oid = $table group by n.nspname, c.relname"
}
for table in $tables; do
    name=$(of "format('%I.%I', n.nspname, c.relname)") &&
        query=$(of "format('copy (select %s from only %I.%I) to stdout',
            string_agg(format('%I', a.attname), ', ' order by a.attnum), n.nspname, c.relname)") &&
        head=$(of "string_agg('\"' || replace(a.attname, '\"', '\"\"') || '\"', ',' order by a.attnum)") &&
        columns=$(of 'count(a.attnum)') &&
        key=$(live "select coalesce(min((select count(*) from pg_attribute b where b.attrelid = a.attrelid and b.attnum > 0
            and b.attnum <= a.attnum and not b.attisdropped and b.attgenerated = '')), 0)
            from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
            where i.indrelid = $table and i.indisprimary and i.indnkeyatts = 1
            and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)") || later "table $table cannot be described"
    file=$(printf '%s' "$name" | tr -c 'A-Za-z0-9_.-' _ | cut -c1-100)
    [ "$file" = "$name" ] || file=$file-$table
    new=no
    copy "$query" sqlstate >"$part/scratch/raw" 2>"$part/scratch/error" || case $(cat "$part/scratch/error") in
        *42P01* | *3F000* | *42703*) new=yes && : >"$part/scratch/raw" ;; # no such table, schema, or column
        *0A000*) : >"$part/scratch/raw" ;; # an unlogged table is not restored, and cannot be read before promotion
        *) later "the copy does not tell the rows of $name: $(head -n 1 "$part/scratch/error")" ;;
    esac
    sort -T "$part/scratch" "$part/scratch/raw" >"$part/scratch/copy" || full
    live "$query" verbose >"$part/scratch/raw" 2>"$part/scratch/error" || unread "$name"
    sort -T "$part/scratch" "$part/scratch/raw" >"$part/scratch/live" || full
    comm -23 "$part/scratch/live" "$part/scratch/copy" >"$part/scratch/rows" || full
    [ -s "$part/scratch/rows" ] || [ "$new" = yes ] || continue
    { printf '%s\n' "$head" && csv "$columns" <"$part/scratch/rows"; } >"$part/$file.csv" || full
    keys=$([ "$key" = 0 ] || cut -f "$key" "$part/scratch/rows" | sort -n -T "$part/scratch" | ranges)
    if [ "$new" = yes ]; then
        quoted=$(of "format('\"%s\".\"%s\"', replace(n.nspname, '\"', '\"\"'), replace(c.relname, '\"', '\"\"'))")
        "$BIN/pg_dump" -w -s -h "$SOCKETS" -p "$PORT" -U "$DBUSER" -d "$DBNAME" -t "$quoted" -f "$part/$file.sql" \
            2>"$part/scratch/error" || note "the form of $name was not exported: $(head -n 1 "$part/scratch/error")"
    fi
    printf 'table\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(printf '%s' "$name" | tr '\t\n' '  ')" "$(wc -l <"$part/scratch/rows")" "$file.csv" \
        "$(stat -c %s "$part/$file.csv")" "$(digest "$part/$file.csv")" "$keys" >>"$part/manifest.tsv" || full
done
both() { # $1 SQL, $2 what it tells; into "both" the lines of the copy after "c ", those of the running database after "l "
    copy "$1" >"$part/scratch/copy" && live "$1" >"$part/scratch/live" || later "$2 cannot be compared"
    { sed 's/^/c /' "$part/scratch/copy" && sed 's/^/l /' "$part/scratch/live"; } >"$part/scratch/both" || full
}
both "select last_value || ' ' || format('%I.%I', schemaname, sequencename) from pg_sequences where last_value is not null" \
    'the sequences'
awk '
    { name = $0; sub(/^[cl] [^ ]* /, "", name) }
    $1 == "c" { at[name] = $2; next }
    !(name in at) { print "sequence " name " stands at " $2 ", and is not in use in the copy"; next }
    $2 + 0 > at[name] + 0 { print "sequence " name " stands at " $2 ", in the copy at " at[name] }
    ' "$part/scratch/both" >"$part/scratch/notes" || full
# What a role may do is told by a digest, which stays in here: the password is in it.
both "select md5(jsonb_build_array(to_jsonb(a) - 'oid', (
        select jsonb_agg(t order by t) from (select jsonb_build_array(r.rolname, to_jsonb(m) - '{oid,roleid,member,grantor}'::text[])
            from pg_auth_members m join pg_authid r on r.oid = m.roleid where m.member = a.oid) g (t)))::text) || ' ' || rolname
    from pg_authid a where rolname !~ '^pg_' order by rolname collate \"C\"" 'the roles'
awk '
    { name = substr($0, 36) }
    $1 == "c" { was[name] = $2; next }
    !(name in was) { print "only in the running database: the role " name; next }
    { if (was[name] != $2) print "other in the copy: password, attributes or memberships of the role " name; delete was[name] }
    END { for (name in was) print "only in the copy, so it comes back with its password and rights: the role " name }
    ' "$part/scratch/both" >"$part/scratch/roles" && sort -T "$part/scratch" "$part/scratch/roles" >>"$part/scratch/notes" || full
# In no order: a sum is the same whatever that is.
both "select m.oid || ' ' || coalesce(sum(hashtextextended(pageno || ':' || md5(data), 0)), 0) from pg_largeobject_metadata m
    left join pg_largeobject on loid = m.oid group by m.oid" 'the large objects'
blobs=$(awk '$1 == "c" { was[$2] = $3; next } !($2 in was) || was[$2] != $3 { print $2 }' "$part/scratch/both" | sort -n | ranges)
[ -z "$blobs" ] || echo "not exported: large objects that the copy lacks, or has in another form: $blobs" >>"$part/scratch/notes" || full
while read -r line; do note "$line"; done <"$part/scratch/notes"
after=$(written) || later 'the running database does not answer any more'
[ "$before" = "$after" ] || later 'rows were written while they were exported, by a login that the guard lets in'
rm -r "$part/scratch"
sync "$part"/* && mv -T "$part" "$OUT" || full
