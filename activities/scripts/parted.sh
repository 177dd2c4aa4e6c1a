# What the scripts of a failback share: where the database in DATA and the one at UPSTREAM, which took over from it, parted,
# and what the log of DATA tells of transactions that were committed after that. Everything goes into WORK. Changes nothing.
about() { "$BIN/pg_controldata" -D "$DATA" 2>/dev/null | sed -n "s/^$1: *//p"; }
bytes() { echo $((0x${1%/*} * 4294967296 + 0x${1#*/})); } # $1 position in the log
replication() { # $1 command, for the one at UPSTREAM
    timeout 20 "$BIN/psql" -wXAtq -d "$UPSTREAM replication=true" -c "$1" 2>"$WORK/error" ||
        later "$FROM cannot be asked: $(tail -n 1 "$WORK/error")"
}
part() { # LINE is the timeline of DATA, FORK where the other one left it: "" if it has not
    known=$(replication 'IDENTIFY_SYSTEM') || exit
    own=$(about 'Database system identifier')
    [ "${known%%|*}" = "$own" ] || fail Refused "at $FROM there is another database (${known%%|*}, not $own); see who put it there"
    now=$(echo "$known" | cut -d '|' -f 2)
    LINE=$(printf '%s\n' "$(about "Latest checkpoint's TimeLineID")" "$(about "Min recovery ending loc's timeline")" | sort -n | tail -n 1)
    FORK=''
    [ "$LINE" != "$now" ] || return 0
    FORK=$(replication "TIMELINE_HISTORY $now" | sed '1s/^[^|]*|//' | awk -v line="$LINE" '$1 == line { print $2; exit }')
    [ -n "$FORK" ] || fail Refused "$DATA is on timeline $LINE, of which $FROM, on $now, knows nothing; see which of the two took over"
}
gather() { # the log of LINE, from the archive and from DATA, which has what was not archived yet
    mkdir -p "$WORK/log"
    prefix=$(printf %08X "$LINE") size=$(about 'Bytes per WAL segment')
    for folder in "$ARCHIVE" "$DATA/pg_wal"; do
        [ ! -d "$folder" ] || find "$folder" -maxdepth 1 -name "$prefix????????????????" -exec ln -sft "$WORK/log" {} +
    done
    number=$(($(bytes "$FORK") / size)) each=$((4294967296 / size))
    first=$(printf '%s%08X%08X' "$prefix" $((number / each)) $((number % each)))
    [ -e "$WORK/log/$first" ] ||
        fail Fatal "the log $first, in which they parted, is neither in $DATA/pg_wal nor in $ARCHIVE any more: what only $DATA has cannot be told"
}
# Into "xids" what was committed after FORK, into "rows" what that did: kind, database, file, block and place in it, and the
# place of the new version. COUNT of them there are, committed from FIRST to LAST; the last record is at END.
read_log() {
    gather
    : >"$WORK/xids" && : >"$WORK/all"
    TZ=UTC "$BIN/pg_waldump" -p "$WORK/log" -t "$LINE" -s "$FORK" 2>"$WORK/error" | awk -v xids="$WORK/xids" -v all="$WORK/all" '
        function after(text, word,  i) { i = index(text, word); return i ? substr(text, i + length(word)) : "" }
        !/^rmgr: / { next }
        {
            xid = after($0, "tx:") + 0; last = after($0, "lsn: "); sub(/,.*/, "", last)
            what = after($0, "desc: "); kind = what; sub(/[ +:].*/, "", kind)
        }
        $2 == "Transaction" && (kind == "COMMIT" || kind == "COMMIT_PREPARED") && xid {
            at = kind == "COMMIT" ? after(what, "COMMIT ") : after(what, ": ")
            if (kind == "COMMIT_PREPARED") xid = after(what, "COMMIT_PREPARED ") + 0
            split(at, word, " "); time = word[1] "T" word[2] "Z"
            if (!count++) first = time
            print xid >xids
            subs = after(what, "subxacts: "); sub(/;.*/, "", subs)
            n = split(subs, sub_, " ")
            for (i = 1; i <= n; i++) print sub_[i] >xids
        }
        ($2 == "Heap" || $2 == "Heap2") && xid && kind ~ /^(INSERT|MULTI_INSERT|UPDATE|HOT_UPDATE|DELETE)$/ {
            split(after($0, "blkref #0: rel "), word, /[\/ ]/) # space, database, file, "blk", number
            # An update that finds no room beside the old version tells the page of that second.
            if (!split(after($0, "blkref #1: rel "), old, /[\/ ]/)) old[5] = word[5]
            gsub(/:/, "", what) # as versions before 16 have it
            sub(/old_off/, "off", what); sub(/new_off/, "new off", what)
            from = after(what, " off ") + 0
            to = kind == "INSERT" ? from : after(what, "new off ") + 0
            print xid, kind, word[2], word[3], old[5] + 0, from, word[5] + 0, to >all
        }
        END { print count + 0, count ? first : "-", count ? time : "-", last == "" ? "-" : last }' >"$WORK/commits"
    # It is read until something is no record any more; what else ends it is a fault.
    [ ! -s "$WORK/error" ] || grep -qE 'invalid|incorrect|unexpected|contrecord|could not find|out-of-sequence' "$WORK/error" ||
        fail Fatal "the log after $FORK cannot be read: $(tail -n 1 "$WORK/error")"
    awk 'NR == FNR { committed[$1]; next } $1 in committed { sub(/^[^ ]* /, ""); print }' "$WORK/xids" "$WORK/all" >"$WORK/rows"
    read -r COUNT FIRST LAST END <"$WORK/commits"
    [ "$END" != - ] || END=$FORK
    [ "$(bytes "$END")" -ge "$(bytes "$(about 'Latest checkpoint location')")" ] ||
        fail Fatal "the log of $DATA breaks off at $END, before its last checkpoint: what only $DATA has cannot be told"
}
put_back() { # stop what reads DATA, or serves it as a standby, and let nothing of an export be left in there
    halt "$(identity "$DATA")"
    [ ! -e "$fold/reading/opts.before" ] || cp -p "$fold/reading/opts.before" "$DATA/postmaster.opts" || full
}
