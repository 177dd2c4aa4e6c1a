# Tell what of the copy in COPY would go back into the running database, or went already. Changes nothing.
# DETAIL=yes also tells which keys, what is there with other content, and all that stands in the way.
. ./both_sides.sh
. ./ranges.sh
[ -d "$COPY" ] || [ "$DETAIL" = yes ] || { echo uncopied; exit 0; } # a check plans for a copy that it has not made
for old in "$COPY"/look.*; do # what an interrupted look left; another one may be at work
    [ ! -d "$old" ] || kill -0 "${old##*.}" 2>/dev/null || rm -rf "$old"
done
work=$COPY/look.$$
trap 'rm -rf "$work"' EXIT
rm -rf "$work"
mkdir -m 700 "$work" || exit 73
blocker() { printf 'blocker\t%s\n' "$1"; }
why() { sed -n '1{s/^ERROR:  [0-9A-Z]*: *//;s/\t/ /g;p;}' "$work/error" | head -c 300; }
rows() { # $1 where, $2 table, $3 key, $4 what else, $5 condition: sorted by key, as join wants it
    "$1" "copy (select $3, $4 from only $2 ${5:+where ((
$5
))}) to stdout" 2>"$work/error" >"$work/raw" && sort -t "$tab" -k 1,1 "$work/raw"
}
valid() { # $1 table, $2 condition: it has to be one expression, in one pair of brackets as in two
    for brackets in "(
$2
)" "((
$2
))"; do
        copy "do $(lit "declare r record; begin for r in execute $(lit "select from only $1 where $brackets limit 0") loop null;
            end loop; end")" >/dev/null 2>"$work/error" || return 1
    done
}
columns() { # $1 where, $2 table
    "$1" "select format('%I %s', attname, format_type(atttypid, atttypmod)) || case attgenerated when '' then '' else ' generated' end
        from pg_attribute where attrelid = to_regclass($(lit "$2")) and attnum > 0 and not attisdropped" | sort
}
listed() { tr '\n' ',' | sed 's/,$//;s/,/, /g' | head -c 300; }
differing() { # the first conflicts of $1, by key: which columns differ
    keys=$(head -n 3 "$work/conflict" | sed "s/'/''/g;s/.*/E'&'/" | tr '\n' ',')
    for side in copy live; do
        "$side" "copy (select $key, c_.name_, md5(c_.value_::text) from only $name as t_,
            lateral jsonb_each(to_jsonb(t_)) as c_ (name_, value_) where $key in (${keys%,})) to stdout" 2>/dev/null |
            sort >"$work/$side.values"
    done
    comm -23 "$work/copy.values" "$work/live.values" | cut -f 1,2 | awk -F '\t' -v n="$1" '
        $1 != key { if (NR > 1) print ""; printf "differs\t%s\t%s\t%s", n, substr($1, 1, 60), $2; key = $1; next }
        { printf ", %s", $2 } END { if (NR) print "" }'
}
references() { # $1 where, $2 table: its foreign keys that can be told by their text
    "$1" "copy (select conname, format('%I.%I', n.nspname, r.relname), k.own, k.other, k.given
        from pg_constraint f join pg_class r on r.oid = confrelid join pg_namespace n on n.oid = r.relnamespace
        cross join lateral (
            select case count(*) when 1 then min(format('%I::text', a.attname))
                    else format('row(%s)::text', string_agg(format('%I::text', a.attname), ', ' order by place)) end as own,
                case count(*) when 1 then min(format('%I::text', b.attname))
                    else format('row(%s)::text', string_agg(format('%I::text', b.attname), ', ' order by place)) end as other,
                string_agg(format('%I is not null', a.attname), ' and ') as given,
                bool_and(a.atttypid = b.atttypid and a.atttypid not in (1700, 700, 701)
                    or a.atttypid in (20, 21, 23) and b.atttypid in (20, 21, 23)) as plain
            from unnest(conkey, confkey) with ordinality as p (mine, its, place)
                join pg_attribute a on a.attrelid = conrelid and a.attnum = mine
                join pg_attribute b on b.attrelid = confrelid and b.attnum = its) k
        where contype = 'f' and conrelid = to_regclass($(lit "$2")) and k.plain) to stdout"
}
unmet() { # $1 number, $2 where its foreign keys are read: what the missing rows refer to, and will not find
    references "$2" "$name" | while IFS=$tab read -r constraint other own theirs given; do
        rows copy "$name" "${key:-''}" "$own" "$where${where:+
)) and ((}$given" | { [ -n "$here" ] && join -t "$tab" -o 1.2 - "$work/missing" || cut -f 2; } | sort -u >"$work/wanted"
        {
            live "copy (select $theirs from only $other) to stdout" 2>/dev/null
            j=0
            while [ "$j" -lt "$TABLES" ]; do
                eval "also=\$TABLE_$j some=\$WHERE_$j"
                [ "$(line 1 "$(facts copy "$also")")" != "$other" ] || rows copy "$other" "$theirs" "''" "$some" | cut -f 1
                j=$((j + 1))
            done
        } | sort -u | comm -23 "$work/wanted" - >"$work/lacks"
        [ ! -s "$work/lacks" ] || printf 'unmet\t%s\t%s\t%s\t%s\t%s\n' "$1" "$constraint" "$other" "$(wc -l <"$work/lacks")" \
            "$(sort -n "$work/lacks" | ranges)"
    done
}
left_out() { # $1 number: what a table that was dropped had, and does not get back
    copy "select format('foreign key %I of %s', conname, conrelid::regclass) from pg_constraint
            where contype = 'f' and confrelid = to_regclass($(lit "$name")) and conrelid <> confrelid
        union all select distinct format('view %s', v.oid::regclass) from pg_depend d
            join pg_rewrite w on w.oid = d.objid join pg_class v on v.oid = w.ev_class
            where d.classid = 'pg_rewrite'::regclass and d.refobjid = to_regclass($(lit "$name")) and v.relkind in ('v', 'm')
        union all select format('publication %I', pubname) from pg_publication_rel join pg_publication p on p.oid = prpubid
            where prrelid = to_regclass($(lit "$name"))" | listed
}
makeable() { # whether the running database can take the table that it lacks
    [ -x "$BIN/pg_dump" ] || { blocker "bin: pg_dump is missing in $BIN; without it $name cannot be re-created"; return 1; }
    schema=$(copy "select format('%I', nspname) from pg_namespace where oid = (select relnamespace from pg_class
        where oid = to_regclass($(lit "$name")))")
    [ "$(live "select to_regnamespace($(lit "$schema")) is not null")" = t ] ||
        { blocker "$name: its schema $schema does not stand in the running database; create it first"; return 1; }
}
fits() { # $1 number: whether rows can go from one table into the other
    [ "$(line 2 "$there")" = r ] || { blocker "parameters.extract.$1.table: $name is no plain table"; return 1; }
    [ -z "$where" ] || valid "$name" "$where" || { blocker "parameters.extract.$1.where: $(why)"; return 1; }
    [ -n "$here" ] || { makeable; return; }
    [ -n "$key" ] || { blocker "$name: it has no primary key, so nobody can tell which rows are missing"; return 1; }
    [ "$(line 7 "$here")" = "$(line 7 "$there")" ] || {
        columns copy "$name" >"$work/a"
        columns live "$name" >"$work/b"
        blocker "$name: the columns differ; only in the copy: $(comm -23 "$work/a" "$work/b" | listed | grep . || echo none); only in the running database: $(comm -13 "$work/a" "$work/b" | listed | grep . || echo none)"
        return 1
    }
}
one() { # $1 number, $2 table, $3 condition
    where=$3 here=$(facts live "$2") there=$(facts copy "$2")
    name=$(line 1 "$there") key=$(line 4 "${here:-$there}")
    [ -n "$here" ] || printf 'absent\t%s\n' "${name:-$2}"
    [ "$went" != put ] || return 0
    [ -n "$there" ] || { blocker "parameters.extract.$1.table: there is no $2 in the copy"; return; }
    fits "$1" || return 0
    digest="'x'"
    [ "$DETAIL" != yes ] || digest=$(line 6 "$there")
    rows copy "$name" "${key:-''}" "$digest" "$where" >"$work/copied" ||
        { blocker "parameters.extract.$1.where: $(why)"; return; }
    silent=''
    : >"$work/conflict"
    if [ -z "$here" ]; then
        same=0
        cut -f 1 "$work/copied" >"$work/missing"
    else
        : >"$work/missing"
        rows live "$name" "$key" "$digest" '' >"$work/lives" || { blocker "$name: $(why)"; return; }
        same=$(join -t "$tab" -a 1 -e '' -o 0,1.2,2.2 "$work/copied" "$work/lives" | awk -F '\t' -v m="$work/missing" -v x="$work/conflict" '
            $3 == "" { print $1 >m; next } $2 != $3 { print $1 >x; next } { same++ } END { print same + 0 }')
    fi
    printf 'table\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$name" "$([ -n "$here" ] && echo yes || echo no)" \
        "$(wc -l <"$work/copied")" "$(wc -l <"$work/missing")" "$same" "$(wc -l <"$work/conflict")" \
        "$([ -z "$key" ] || sort -n "$work/missing" | ranges)" "$(sort -n "$work/conflict" | ranges)"
    [ "$DETAIL" = yes ] || return 0
    [ ! -s "$work/conflict" ] || differing "$1"
    [ ! -s "$work/missing" ] || unmet "$1" "$([ -n "$here" ] && echo live || echo copy)"
    [ -n "$here" ] || { without=$(left_out); [ -z "$without" ] || printf 'without\t%s\t%s\n' "$1" "$without"; }
    [ -z "$here" ] || silent=$(live "select string_agg(tgname, ', ' order by tgname) from pg_trigger where not tgisinternal and tgenabled <> 'D'
        and tgrelid = to_regclass($(lit "$name"))")
    [ -z "$silent" ] || printf 'silent\t%s\t%s\n' "$1" "$silent"
}
locked=$(PGOPTIONS='' live "select current_setting('transaction_read_only')" 2>"$work/error") ||
    { printf 'down\t%s\n' "$(tr '\t\n' '  ' <"$work/error")"; exit 0; }
copy 'select 1' >/dev/null 2>"$work/error" || fail Transient "the copy does not answer: $(tr '\t\n' '  ' <"$work/error")"
[ "$locked" = off ] || blocker 'the running database is read-only: rows can only go back into one that is written to'
tell() {
    i=0
    while [ "$i" -lt "$TABLES" ]; do
        eval "table=\$TABLE_$i where=\$WHERE_$i"
        one "$i" "$table" "$where"
        i=$((i + 1))
    done
    [ "$went" = put ] || return 0
    printf 'put\t%s\n' "$(sha256sum <"$extract/put" | cut -c1-16)"
    sed 1d "$extract/put" | while IFS=$tab read -r number _ name _ count; do
        printf 'went\t%s\t%s\t%s\n' "$name" "$count" "$(cut -f 1 "$extract/rows.$number" | sort -n | ranges)"
    done
}
went=''
while now=$(went) && [ "$now" != "$went" ]; do # again, if the rows went in or out in the middle of the look
    sure "$now"
    went=$now
    tell >"$work/told"
done
cat "$work/told"
