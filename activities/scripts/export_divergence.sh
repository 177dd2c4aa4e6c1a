# Export what the fenced database in DATA has that the one at UPSTREAM, which took over from it, never had:
# of each table the rows that transactions committed after the fork left, as CSV, into OUT. DATA is read as a standby that
# follows nobody, over a socket of its own; it comes to its last state by that, and keeps all its log.
. ./running.sh
. ./parted.sh
. ./ranges.sh
fold=$OUT.partial
full() { fail Fatal "nothing can be written into $fold: is the disk full? Free room under $(dirname "$OUT")"; }
[ ! -e "$OUT" ] || fail Drifted "$OUT stands there already"
[ ! -s "$fold/owner" ] || [ "$(cat "$fold/owner")" = "$OWNER" ] || fail Drifted "$fold belongs to another recovery"
[ -e "$DATA/standby.signal" ] || fail Refused "$DATA would come up as a primary; it has to be fenced before it is read"
put_back
rm -rf "$fold"
umask 077
COPY=$fold/reading work=$fold/reading/work SOCKETS=$fold/reading
mkdir -p "$work" "$COPY/kept" && printf '%s' "$OWNER" >"$fold/owner" || full
part
[ -n "$fork" ] || fail Refused "$DATA and the database at $FROM have not parted; there is nothing to export"
read_log
[ "$count" != 0 ] || fail Refused "nothing was committed in $DATA after it parted from $FROM; there is nothing to export"
remember log "$COPY/log"
[ -e "$DATA/standby.signal" ] || fail Refused "$DATA would come up as a primary; somebody else has taken its standby.signal"
# A server writes what it is started with over what is there.
before=$DATA/postmaster.opts.before
{ [ ! -e "$DATA/postmaster.opts" ] || cp -p "$DATA/postmaster.opts" "$before.new"; } && : >>"$before.new" && mv -f "$before.new" "$before" || full
{ cat "$DATA/postmaster.opts" 2>/dev/null || printf 'postgres'; } | tr '\n' ' ' >"$COPY/opts"
for setting in listen_addresses= "unix_socket_directories=$SOCKETS" hot_standby=on primary_conninfo= primary_slot_name= restore_command= \
    archive_cleanup_command= recovery_target_timeline=current recovery_target= recovery_target_name= recovery_target_time= \
    recovery_target_xid= recovery_target_lsn= recovery_target_action=shutdown wal_keep_size=2147483647 archive_mode=off logging_collector=off; do
    printf ' "-c" "%s"' "$setting"
done >>"$COPY/opts" || full
patience=600
launch "$COPY/opts" || later "$DATA cannot be read within 10 min: $(tail -n 1 "$COPY/log")"
since=$(date +%s)
until [ "$(ask "select pg_is_in_recovery() and pg_last_wal_replay_lsn() > '$end'::pg_lsn")" = t ]; do
    [ $(($(date +%s) - since)) -lt 600 ] || later "$DATA does not come to the end of its log, $end"
    sleep 0.1
done
export PGOPTIONS="-c default_transaction_read_only=on -c statement_timeout=0 -c search_path=pg_catalog -c lc_messages=C
    -c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=1 -c bytea_output=hex"
query() { # $1 what a table tells of the rows that were left, $2 its name: more of them than a command line holds
    { printf "copy (select %s from only %s where xmin::text = any ('{" "$1" "$2" && paste -sd, "$work/xids" && printf "}')) to stdout%s;\n" "$3"; } >"$work/query"
    "$BIN/psql" -wXAtq -h "$SOCKETS" -p "$PORT" -U "$DBUSER" -d "$DBNAME" -v ON_ERROR_STOP=1 -f "$work/query" 2>"$work/error" && return
    [ "$(df --output=avail "$fold" | tail -n 1)" -gt 0 ] || full
    fail Fatal "the rows of $2 cannot be read: $(grep -m 1 ERROR "$work/error" | cut -c1-300)"
}
note() { printf 'note\t%s\n' "$(printf '%s' "$1" | tr '\t\n' '  ' | cut -c1-300)" >>"$fold/manifest.tsv" || full; }
counted() { [ "$1" = 1 ] && echo "1 $2" || echo "$1 $2s"; }
printf 'kind\ttable\trows\tfile\tbytes\tsha256\tkeys\n' >"$fold/manifest.tsv" || full
own=$(ask "select oid from pg_database where datname = current_database()") || later "$DATA does not answer"
ask "select pg_relation_filenode(c.oid), c.oid, case when n.nspname ~ '^pg_toast' then 'toast' when n.nspname ~ '^(pg_|information_schema\$)' then 'catalog'
    else 'table' end from pg_class c join pg_namespace n on n.oid = relnamespace where relkind in ('r', 'm', 't')
    and relpersistence = 'p' and pg_relation_filenode(c.oid) is not null order by n.nspname, c.relname" >"$work/files" || later "$DATA does not answer"
# Every table: what was written before the fork, and committed after it, has left no trace in the log after it.
awk -F '|' '$3 == "table" { print $2 "|" $1 }' "$work/files" >"$work/tables" || full
while IFS='|' read -r table place; do
    told=$(ask "select format('%I.%I', n.nspname, c.relname) || '|' || (select string_agg(format('%I', attname), ', ' order by attnum)
            from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped and attgenerated = '') || '|' || coalesce((
            select format('%I', a.attname) from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
            where i.indrelid = c.oid and i.indisprimary and i.indnkeyatts = 1
            and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)), '')
        from pg_class c join pg_namespace n on n.oid = relnamespace where c.oid = $table") || later "table $table cannot be described"
    name=${told%%|*} key=${told##*|} columns=${told#*|} columns=${columns%|*}
    file=$(printf '%s' "$name" | tr -c 'A-Za-z0-9_.-' _ | cut -c1-100)
    [ "$file" = "$name" ] || file=$file-$table
    # What was there at the fork, and is not any more: where it stood, for there is nothing of it left to be read here.
    awk -v own="$own" -v place="$place" '
        $2 != own || $3 != place || $1 == "MULTI_INSERT" { next }
        { at = $4 "," $5; to = $6 "," $7 }
        $1 == "INSERT" { fresh[to]; next }
        $1 == "DELETE" { if (!(at in fresh)) print (at in from ? from[at] : at); next }
        at in fresh { fresh[to]; next }
        { from[to] = (at in from ? from[at] : at) }' "$work/rows" >"$work/gone" || full
    if [ -s "$work/gone" ]; then
        { echo block,place && cat "$work/gone"; } >"$fold/$file.deleted.csv" || full
        note "$name: $(counted "$(wc -l <"$work/gone")" row) had been deleted there only, and not at $FROM; their places are in $file.deleted.csv"
    fi
    query "${key:-1}" "$name" >"$work/keys"
    rows=$(wc -l <"$work/keys")
    [ "$rows" != 0 ] || continue
    query "$columns" "$name" ' with (format csv, header, force_quote *)' >"$fold/$file.csv"
    keys=$([ -z "$key" ] || sort -n -T "$work" "$work/keys" | MOST=4000 ranges)
    printf 'table\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(printf '%s' "$name" | tr '\t\n' '  ')" "$rows" "$file.csv" \
        "$(stat -c %s "$fold/$file.csv")" "$(digest "$fold/$file.csv")" "$keys" >>"$fold/manifest.tsv" || full
done <"$work/tables"
query 'quote_ident(relname)' pg_catalog.pg_class >"$work/made"
made=$(grep -v '^pg_toast' "$work/made" | sort -u | paste -sd ' ' - | cut -c1-200)
[ -z "$made" ] || note "tables, indexes or sequences that were made or altered there only: $made"
lost=$(awk -F '|' 'NR == FNR { files[$1]; next } { n = split($0, word, " "); if (word[2] == own && !(word[3] in files)) count++ } END { print count + 0 }' \
    own="$own" "$work/files" "$work/rows")
[ "$lost" = 0 ] || note "$(counted "$lost" change) went into tables that were dropped, emptied or rewritten there since; what is left of those is exported"
elsewhere=$(awk -v own="$own" '$2 != own && $2 != 0 { count++ } END { print count + 0 }' "$work/rows")
[ "$elsewhere" = 0 ] || note "$(counted "$elsewhere" change) in other databases of the same server are not exported"
! grep -q " $own 2613 " "$work/rows" || note 'large objects that were written there only are not exported'
put_back
rm -r "$COPY"
sync "$fold"/* && mv -T "$fold" "$OUT" || full
