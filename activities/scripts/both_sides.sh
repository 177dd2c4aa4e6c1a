# What scripts share that look at both sides, the copy and the running database.
export LC_ALL=C PGCONNECT_TIMEOUT=5 PGCLIENTENCODING=UTF8
# Both sides have to write a value in the same way, whatever roles and databases are set to.
fixed="-c lock_timeout=${LOCKWAIT:-30s} -c statement_timeout=0 -c datestyle=ISO,MDY -c intervalstyle=postgres -c bytea_output=hex"
fixed="$fixed -c extra_float_digits=1 -c timezone=UTC -c row_security=off -c standard_conforming_strings=on"
export PGOPTIONS="$fixed -c default_transaction_read_only=on"
extract=$COPY/extract
mark="recovery $(printf '%s' "$COPY" | sha256sum | cut -c1-16)" # what our sessions are called that change something
tab=$(printf '\t')
fail() { echo "$1: $2" >&2; exit 3; }
ask() { "$BIN/psql" -wXAtq -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -U "$DBUSER" -d "$DBNAME" "$@"; }
copy() { ask -h "$COPY/run" -p "$COPYPORT" -c "$1"; }
live() { ask -h "$SOCKETS" -p "$PORT" -c "$1"; }
lit() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"; }
facts() { # $1 where, $2 table: name, kind, columns, key, same key (t = e), digest of a row, signature; a line each
    "$1" "select concat_ws(chr(10), format('%I.%I', n.nspname, c.relname), c.relkind, a.columns, coalesce(k.key, ''),
            coalesce(k.same, ''), a.digest, a.signature)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (
            select string_agg(format('%I', attname), ', ' order by attname) filter (where attgenerated = '') as columns,
                format('md5(row(%s)::text)', string_agg(format('%I', attname), ', ' order by attname)) as digest,
                md5(string_agg(format('%I %s %s', attname, format_type(atttypid, atttypmod), attgenerated), ','
                    order by attname)) as signature
            from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) a
        left join lateral (
            select case count(*) when 1 then min(format('%I::text', attname))
                    else format('row(%s)::text', string_agg(format('%I::text', attname), ', ' order by place)) end as key,
                string_agg(format('t.%I = e.%I', attname, attname), ' and ' order by place) as same
            from pg_index i, unnest(i.indkey::int2[]) with ordinality as p (number, place), pg_attribute a
            where i.indrelid = c.oid and i.indisprimary and place <= i.indnkeyatts and attrelid = c.oid
                and attnum = number having count(*) > 0) k on true
        where c.oid = to_regclass($(lit "$2"))"
}
line() { printf '%s\n' "$2" | sed -n "$1p"; }
ended() { # $1 file that begins with the number of a transaction: how that one ended
    [ -e "$1" ] || { echo none; return; }
    [ ! -e "$1.committed" ] || { echo committed; return; }
    live "select coalesce(pg_xact_status('$(head -n 1 "$1")'::xid8), 'unknown')" 2>/dev/null ||
        { [ "$?" = 2 ] && echo down || echo unknown; }
}
went() { # whether rows went into the running database and were not taken back: put or none, if that can be told
    put=$(ended "$extract/put")
    taken=$([ "$put" != committed ] || ended "$extract/taken")
    case $put/$taken in
        down/* | */down) echo down ;;
        unknown/* | */unknown) echo unknown ;;
        committed/committed) echo none ;;
        committed/*) echo put ;;
        *) echo none ;;
    esac
}
sure() { # $1 what went
    case $1 in
        down) fail Transient "the running database does not answer" ;;
        unknown) fail Fatal "the running database does not know the transaction in $extract/put: is it another server?" ;;
    esac
}
