# Take out of the running database exactly the rows that copy_back put in, if they are still as they were put.
# A table that was made is dropped, if it holds nothing else. All in one transaction, or nothing.
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
if [ "$(ended "$extract/taken")" = committed ]; then rm -f "$extract/put"; rm -rf "$extract"; exit 0; fi
went=$(went)
sure "$went"
[ "$went" = put ] || fail Drifted "somebody else put the missing rows in; this recovery put in none, and nothing was deleted"
rm -rf "$work"
mkdir -p "$work" || fail Fatal "$extract cannot be written to: is the disk full?"
full() { fail Fatal "the disk is full; free room under $(dirname "$COPY"); nothing was deleted"; }
stop() { # what went wrong, from what psql said in $work/error; nothing was done
    [ "$(df --output=avail "$extract" | tail -n 1)" -gt 0 ] || full
    grep -E '^(Transient|Refused|Drifted|Fatal): ' "$work/error" >&2 && exit 3
    said=$(sed -n 's/^.*\(ERROR\|FATAL\|PANIC\):  \([0-9A-Z]\{5\}\): /\2 /p' "$work/error" | head -n 1)
    said=${said:-"     $(tail -n 1 "$work/error")"}
    text=${said#??????}
    case $said in
        P0001*) echo "$text" >&2; exit 3 ;;
        2BP01* | 23*) fail Drifted "nothing was deleted; somebody else made what depends on it: $text" ;;
        42P01* | 42703*) fail Drifted "nothing was deleted; somebody else changed a table: $text" ;;
        55P03*) fail Transient "nothing was deleted; others hold a lock on a table for more than 30 s: $text" ;;
        42501* | *'permission denied'*) fail Fatal "nothing was deleted; $DBUSER may not do it: $text" ;;
        25006*) fail Fatal "nothing was deleted; the running database is read-only" ;;
        08* | 40* | 53* | 57* | 58* | ' '*) fail Transient "nothing was deleted: $text" ;;
        *) fail Fatal "nothing was deleted: $text" ;;
    esac
}
made='' filled='' drop='' locks=''
sed 1d "$extract/put" >"$work/tables"
while IFS=$tab read -r i how name sum _; do
    [ "$(sha256sum <"$extract/rows.$i" | cut -c1-64)" = "$sum" ] || fail Fatal "$extract/rows.$i is damaged; nothing was deleted"
    facts live "$name" >"$work/$i.facts" 2>"$work/error" || stop
    [ -s "$work/$i.facts" ] || fail Drifted "$name: somebody else dropped it; nothing was deleted"
    if [ "$how" = made ]; then made="$made $i" drop="$drop, $name"; else filled="$i $filled" locks="$locks, only $name"; fi
done <"$work/tables"
for i in $filled; do # here the rows that refer go first
    echo "$i $i"
    name=$(head -n 1 "$work/$i.facts")
    live "select conrelid::regclass from pg_constraint where contype = 'f' and confrelid = to_regclass($(lit "$name"))" |
        while read -r other; do
            for j in $filled; do
                [ "$(live "select to_regclass($(lit "$other")) = to_regclass($(lit "$(head -n 1 "$work/$j.facts")"))")" != t ] || echo "$j $i"
            done
        done
done >"$work/edges"
ordered=$(tsort "$work/edges" 2>/dev/null)
cat >"$work/keep" <<'KEEP'
# Keep in which transaction the rows go, before it counts.
set -eu
echo "$xid" >"$extract/taken.part"
sync "$extract/taken.part"
mv "$extract/taken.part" "$extract/taken"
sync "$extract"
KEEP
take() { # the facts of table $1
    known=$(cat "$work/$1.facts")
    name=$(line 1 "$known") key=$(line 4 "$known") digest=$(line 6 "$known")
}
check() { # $1 what must hold of the rows that were put
    lit "begin if not ($1) then raise exception using
        message = $(lit "Drifted: $name: somebody else changed what was put back; nothing was deleted"); end if; end"
}
unused() { # nothing that others wrote refers to a row that goes: it would go, or change, along with it
    lit "declare f record; used bool; begin
        for f in select conrelid::regclass as other, conrelid = confrelid as self,
            (select string_agg(format('r.%I = t.%I', a.attname, b.attname), ' and ')
                from unnest(conkey, confkey) as p (mine, its) join pg_attribute a on a.attrelid = conrelid and a.attnum = mine
                    join pg_attribute b on b.attrelid = confrelid and b.attnum = its) as same
            from pg_constraint where contype = 'f' and confrelid = to_regclass($(lit "$name"))
        loop
            execute format('select exists (select from %s r where %s exists (select from only %s t where %s and %s in ('
                'select key_ from pg_temp.recovery_$1)))', f.other, case when f.self then $(lit "$key not in (
                select key_ from pg_temp.recovery_$1) and") else '' end, $(lit "$name"), f.same, $(lit "$key")) into used;
            if used then raise exception using message = format('Drifted: %s: somebody else wrote rows into %s that refer to what'
                ' was put back; nothing was deleted', $(lit "$name"), f.other); end if;
        end loop; end"
}
transaction() {
    printf '%s\n' 'begin isolation level read committed read write;' 'select pg_current_xact_id() as xid \gset' '\setenv xid :xid'
    [ -z "$drop" ] || echo "lock table ${drop#, } in access exclusive mode;"
    [ -z "$locks" ] || echo "lock table ${locks#, } in share row exclusive mode;"
    echo 'create temp table recovery_triggers (off text, again text) on commit drop;'
    for i in $made $ordered; do
        take "$i"
        printf '%s\n' "create temp table recovery_$i (key_ text, digest_ text) on commit drop;" \
            "\\copy pg_temp.recovery_$i from '$extract/rows.$i'" "analyze pg_temp.recovery_$i;"
    done
    for i in $made; do
        take "$i"
        now="select ${key:-''}, $digest from only $name" put="select key_, digest_ from pg_temp.recovery_$i"
        echo "do $(check "not exists ($now except all $put) and not exists ($put except all $now)");"
    done
    [ -z "$drop" ] || echo "drop table ${drop#, };"
    for i in $ordered; do
        take "$i"
        cat <<SQL
insert into pg_temp.recovery_triggers select format('alter table only %s disable trigger %I', tgrelid::regclass, tgname),
    format('alter table only %s enable %s trigger %I', tgrelid::regclass,
        case tgenabled when 'A' then 'always' when 'R' then 'replica' end, tgname)
    from pg_trigger where tgrelid = to_regclass($(lit "$name")) and not tgisinternal and tgenabled <> 'D';
SQL
    done
    echo 'select off from pg_temp.recovery_triggers \gexec'
    for i in $ordered; do
        take "$i"
        cat <<SQL
select from only $name where $key in (select key_ from pg_temp.recovery_$i) for update;
do $(check "(select count(*) from only $name where ($key, $digest) in (select key_, digest_ from pg_temp.recovery_$i))
    = (select count(*) from pg_temp.recovery_$i)");
do $(unused "$i");
delete from only $name where $key in (select key_ from pg_temp.recovery_$i);
SQL
    done
    printf '%s\n' 'set constraints all immediate;' 'select again from pg_temp.recovery_triggers \gexec'
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
[ -e "$extract/taken" ] || stop
rm -f "$extract/put"
rm -rf "$extract"
