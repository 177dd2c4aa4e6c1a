# Wait up to WAIT seconds for the first row that a client commits after the doors were opened, and tell when that was.
. ./running.sh
read -r xid written <"$COPY/kept/opened" 2>/dev/null || exit 0
seen='' began=$(date +%s)
while :; do
    now=$(ask "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) > $written, pg_snapshot_xmax(pg_current_snapshot())
        > '$xid'::xid8, extract(epoch from clock_timestamp()) from pg_stat_user_tables" 2>/dev/null)
    case $now in t\|* | f\|t\|*) seen=${seen:-${now##*|}} ;; esac
    case $now in t\|*) break ;; esac
    [ $(($(date +%s) - began)) -lt "$WAIT" ] || exit 0
    sleep 0.1
done
at=$(ask "select extract(epoch from min(pg_xact_commit_timestamp((x % 4294967296)::text::xid))) from
    generate_series('$xid'::bigint, least('$xid'::bigint + 1000, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)) x" 2>/dev/null)
if [ -n "$at" ]; then printf 'committed\t%s\n' "$at"; else printf 'seen\t%s\n' "$seen"; fi
