# Put the wanted rows of the copy in COPY back into the running database: all of them in one transaction, or none.
# Safe to run again at any point: whether an earlier attempt counts is asked of the database, by its transaction.
. ./both_sides.sh
set -u
umask 077
work=$extract/scratch
trap 'rm -rf "$work"' EXIT
. ./end_sessions.sh
[ "$(cat "$COPY/owner" 2>/dev/null)" = "$OWNER" ] || fail Drifted "$COPY belongs to another recovery"
exec 8<"$COPY/owner"
flock 8 # as long as this one is at work nobody clears up
end_sessions
went=$(went)
sure "$went"
[ "$went" != put ] || exit 0
rm -rf "$extract"
mkdir -p "$work" || fail Fatal "$extract cannot be made: is the disk full?"
full() { fail Fatal "the disk is full; free room under $(dirname "$COPY")"; }
stop() { # what went wrong, from what psql said in $work/error; nothing was done
    [ "$(df --output=avail "$extract" | tail -n 1)" -gt 0 ] || full
    grep -E '^(Transient|Refused|Drifted|Fatal): ' "$work/error" >&2 && exit 3
    ! grep -q 'No space left' "$work/error" || full
    said=$(sed -n 's/^.*\(ERROR\|FATAL\|PANIC\):  \([0-9A-Z]\{5\}\): /\2 /p' "$work/error" | head -n 1)
    detail=$(sed -n 's/^DETAIL:  /: /p' "$work/error" | head -n 1 | head -c 200)
    said=${said:-"     $(tail -n 1 "$work/error")"}
    text=${said#??????}
    case $said in
        P0001*) echo "$text" >&2; exit 3 ;;
        23503*) fail Refused "nothing was put back; a row refers to one that is not there: $text$detail" ;;
        23*) fail Refused "nothing was put back; a row does not fit what is there: $text$detail" ;;
        42P07* | 42710*) fail Drifted "nothing was put back; somebody else made it meanwhile: $text" ;;
        42P01*) fail Drifted "nothing was put back; somebody else dropped it meanwhile: $text" ;;
        42501* | *'permission denied'*) fail Fatal "nothing was put back; $DBUSER may not do it: $text" ;;
        25006*) fail Fatal "nothing was put back; the running database is read-only" ;;
        53100*) fail Fatal "nothing was put back; the disk of the running database is full: $text" ;;
        55P03*) fail Transient "nothing was put back; others hold a lock on a table for more than 30 s: $text" ;;
        08* | 40* | 53* | 57* | 58* | ' '*) fail Transient "nothing was put back: $text" ;;
        *) fail Fatal "nothing was put back: $text$detail" ;;
    esac
}
files() { "$BIN/pg_dump" -w -h "$COPY/run" -p "$COPYPORT" -U "$DBUSER" -d "$DBNAME" "$@" 2>"$work/error" || stop; }
pattern() { copy "select '\"' || replace(nspname, '\"', '\"\"') || '\".\"' || replace(relname, '\"', '\"\"') || '\"'
    from pg_class c join pg_namespace n on n.oid = relnamespace where c.oid = to_regclass($(lit "$1"))"; }
i=0 standing='' made=''
set -- # the tables that pg_dump is to tell of
while [ "$i" -lt "$TABLES" ]; do
    eval "table=\$TABLE_$i where=\$WHERE_$i"
    here=$(facts live "$table" 2>"$work/error") || stop
    there=$(facts copy "$table" 2>"$work/error") || stop
    [ -n "$there" ] || fail Refused "parameters.extract.$i.table: there is no $table in the copy"
    printf '%s\n' "${here:-$there}" >"$work/$i.facts"
    name=$(line 1 "$there") columns=$(line 3 "$there")
    if [ -z "$here" ]; then
        made="$made $i" how=made
        set -- "$@" "--table=$(pattern "$table")"
    else
        standing="$standing $i" how=filled
        [ "$(line 7 "$here")" = "$(line 7 "$there")" ] || fail Refused "$name: its columns are not those of the copy"
        [ -n "$(line 4 "$here")" ] || fail Refused "$name: it has no primary key, so nobody can tell which rows are missing"
    fi
    printf '%s\t%s\t%s\n' "$i" "$how" "$name" >>"$work/tables"
    copy "copy (select $columns from only $name ${where:+where ((
$where
))}) to stdout" >"$work/$i.rows" 2>"$work/error" || stop
    i=$((i + 1))
done
if [ -n "$made" ]; then
    files --section=pre-data "$@" >"$work/pre"
    files --section=post-data "$@" >"$work/post"
    for table; do set -- "$@" "--exclude-table-data=${table#--table=}"; done
    files --section=data "$@" >"$work/sequences" # all that is left of the data
    for i in $made; do
        copy "set search_path = ''; select pg_get_statisticsobjdef(oid) || ';' from pg_statistic_ext where stxrelid = to_regclass($(lit "$(line 1 "$(cat "$work/$i.facts")")"))" \
            >>"$work/post" 2>"$work/error" || stop
    done
fi
# Rows go in after those that they refer to.
for i in $standing; do
    echo "$i $i"
    live "select confrelid::regclass from pg_constraint where contype = 'f' and conrelid = to_regclass($(lit "$(head -n 1 "$work/$i.facts")"))" |
        while read -r other; do
            for j in $standing; do
                [ "$(live "select to_regclass($(lit "$other")) = to_regclass($(lit "$(head -n 1 "$work/$j.facts")"))")" != t ] || echo "$j $i"
            done
        done
done >"$work/edges"
ordered=$(tsort "$work/edges" 2>/dev/null)
cat >"$work/keep" <<'KEEP'
# Keep which rows go, before they count: so that exactly these can be taken back.
set -eu
tab=$(printf '\t')
{
    echo "$xid"
    while IFS=$tab read -r number how name; do
        printf '%s\t%s\t%s\t%s\t%s\n' "$number" "$how" "$name" "$(sha256sum <"$extract/rows.$number" | cut -c1-64)" \
            "$(wc -l <"$extract/rows.$number")"
    done <"$extract/scratch/tables"
} >"$extract/put.part"
sync "$extract"/rows.* "$extract/put.part"
mv "$extract/put.part" "$extract/put"
sync "$extract"
KEEP
take() { # the facts of table $1
    known=$(cat "$work/$1.facts")
    name=$(line 1 "$known") columns=$(line 3 "$known") key=$(line 4 "$known") same=$(line 5 "$known") digest=$(line 6 "$known")
}
unchanged() { # whether table $1 is still as it was found
    lit "begin if (select md5(string_agg(format('%I %s %s', attname, format_type(atttypid, atttypmod), attgenerated), ','
        order by attname)) from pg_attribute where attrelid = to_regclass($(lit "$name")) and attnum > 0 and not attisdropped)
        is distinct from '$(line 7 "$known")' then
        raise exception using message = $(lit "Drifted: $name: somebody else changed its columns meanwhile; nothing was put back");
        end if; end"
}
onward() { # sequences of table $1: past what its columns hold
    lit "declare s record; top bigint; reached bigint; begin
        for s in select distinct q.*, a.attname, q.seqrelid::regclass as name
            from pg_attribute a join pg_depend d on d.refobjid = a.attrelid and d.refobjsubid = a.attnum
                and d.refclassid = 'pg_class'::regclass
            left join pg_depend u on d.classid = 'pg_attrdef'::regclass and u.classid = d.classid and u.objid = d.objid
                and u.refclassid = 'pg_class'::regclass
            join pg_sequence q on q.seqrelid = case d.classid when 'pg_class'::regclass then d.objid else u.refobjid end
            where a.attrelid = to_regclass($(lit "$name")) and a.atttypid in (20, 21, 23)
        loop
            execute format('select %s(%I) from only %s', case when s.seqincrement > 0 then 'max' else 'min' end, s.attname,
                $(lit "$name")) into top;
            execute format('select last_value from %s', s.name) into reached;
            if top between s.seqmin and s.seqmax and sign(top - reached) in (0, sign(s.seqincrement)) then
                perform setval(s.name, top);
            end if;
        end loop; end"
}
transaction() {
    printf '%s\n' 'begin isolation level read committed read write;' 'select pg_current_xact_id() as xid \gset' '\setenv xid :xid'
    [ -z "$made" ] || printf '%s\n' "\\i '$work/pre'" 'reset search_path;' "set lock_timeout = '${LOCKWAIT:-30s}';"
    locks=''
    for i in $standing; do take "$i"; locks="$locks, only $name"; done
    [ -z "$locks" ] || echo "lock table ${locks#, } in share row exclusive mode;"
    echo 'create temp table recovery_triggers (off text, again text) on commit drop;'
    for i in $standing; do
        take "$i"
        echo "do $(unchanged "$i");"
        # Rows come back as they were: what a trigger would make of them was made when they first came.
        cat <<SQL
insert into pg_temp.recovery_triggers select format('alter table only %s disable trigger %I', tgrelid::regclass, tgname),
    format('alter table only %s enable %s trigger %I', tgrelid::regclass,
        case tgenabled when 'A' then 'always' when 'R' then 'replica' end, tgname)
    from pg_trigger where tgrelid = to_regclass($(lit "$name")) and not tgisinternal and tgenabled <> 'D';
SQL
    done
    echo 'select off from pg_temp.recovery_triggers \gexec'
    for i in $made; do
        take "$i"
        printf '%s\n' "\\copy $name ($columns) from '$work/$i.rows'" \
            "copy (select ${key:-''}, $digest from only $name) to stdout \\g '$extract/rows.$i'"
    done
    for i in $ordered; do
        take "$i"
        cat <<SQL
create temp table recovery_$i on commit drop as select $columns from only $name with no data;
\\copy pg_temp.recovery_$i from '$work/$i.rows'
copy (insert into $name ($columns) overriding system value select $columns from pg_temp.recovery_$i e
    where not exists (select from only $name t where $same) returning $key, $digest) to stdout \\g '$extract/rows.$i'
SQL
    done
    printf '%s\n' 'set constraints all immediate;' 'select again from pg_temp.recovery_triggers \gexec'
    [ -z "$made" ] || printf '%s\n' "\\i '$work/post'" "\\i '$work/sequences'" 'reset search_path;'
    for i in $made $standing; do take "$i"; echo "do $(onward "$i");"; done
    cat <<'SQL'
\set kept `sh "$extract/scratch/keep" && echo yes || echo no`
\if :kept
commit;
\else
rollback;
\endif
SQL
}
transaction | extract=$extract PGAPPNAME=$mark PGOPTIONS="$fixed" ask -h "$SOCKETS" -p "$PORT" -f - >/dev/null 2>"$work/error" || stop
[ -e "$extract/put" ] || stop
: >"$extract/put.committed" # later the database forgets how a transaction ended
rm -rf "$work"
