# Let clients into the database in DATA: the rules that were kept take the place of the guard, to the byte.
# FORGET tells that this undoes the closing, so that nothing is kept any longer.
. ./running.sh
kept=$COPY/kept
case $(identity "$DATA") in
    '') fail Drifted "$DATA is not there" ;;
    "$IDENTITY" | "$(cat "$kept/copy" 2>/dev/null)") ;;
    *) fail Drifted "$DATA is not the database that was looked at" ;;
esac
if [ -e "$kept/pg_hba.conf" ]; then
    if [ "$FORGET" = no ] && [ "$(digest "$DATA/pg_hba.conf")" = "$SHUT" ]; then
        # What was written before the first client came, so that its first write can be told.
        ask "select pg_snapshot_xmax(pg_current_snapshot()), coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)
            from pg_stat_user_tables" | tr '|' ' ' >"$kept/opened" || rm -f "$kept/opened"
    fi
    cmp -s "$kept/pg_hba.conf" "$DATA/pg_hba.conf" || keep "$kept/pg_hba.conf" "$DATA/pg_hba.conf"
    reread
fi
[ "$FORGET" = no ] || rm -f "$kept/pg_hba.conf" "$kept/guard" "$kept/opened"
