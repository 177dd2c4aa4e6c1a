# What the scripts of a failback share: where the database in DATA and the one at UPSTREAM, which took over from it, parted,
# and what the log of DATA tells of transactions that were committed after that. Everything goes into the folder "work".
# Changes nothing.
about() { "$BIN/pg_controldata" -D "$DATA" 2>/dev/null | sed -n "s/^$1: *//p"; }
bytes() { echo $((0x${1%/*} * 4294967296 + 0x${1#*/})); } # $1 position in the log
replication() { # $1 command, for the one at UPSTREAM
    timeout 20 "$BIN/psql" -wXAtq -d "$UPSTREAM replication=true" -c "$1" 2>"$work/error" ||
        later "$FROM cannot be asked: $(tail -n 1 "$work/error")"
}
part() { # "line" is the timeline of DATA, "fork" where the other one left it: "" if it has not
    known=$(replication 'IDENTIFY_SYSTEM') || exit
    own=$(about 'Database system identifier')
    [ "${known%%|*}" = "$own" ] || fail Refused "at $FROM there is another database (${known%%|*}, not $own); see who put it there"
    now=$(echo "$known" | cut -d '|' -f 2)
    line=$(printf '%s\n' "$(about "Latest checkpoint's TimeLineID")" "$(about "Min recovery ending loc's timeline")" | sort -n | tail -n 1)
    fork=''
    [ "$line" != "$now" ] || return 0
    history=$(replication "TIMELINE_HISTORY $now") || exit
    fork=$(printf '%s\n' "$history" | sed '1s/^[^|]*|//' | awk -v line="$line" '$1 == line { print $2; exit }')
    [ -n "$fork" ] || fail Refused "$DATA is on timeline $line, of which $FROM, on $now, knows nothing; see which of the two took over"
}
gather() { # the log of line, from the archive and from DATA, which has what was not archived yet; 1 if it ended before fork
    mkdir -p "$work/log"
    prefix=$(printf %08X "$line") size=$(about 'Bytes per WAL segment')
    for folder in "$ARCHIVE" "$DATA/pg_wal"; do
        [ ! -d "$folder" ] || find "$folder" -maxdepth 1 -name "$prefix????????????????" -exec ln -sft "$work/log" {} +
    done
    # One that was made for later, and holds nothing yet, would tell pg_waldump a wrong size of all.
    for file in "$DATA/pg_wal/$prefix"????????????????; do
        [ -n "$(head -c 2 "$file" 2>/dev/null | tr -d '\0')" ] || rm -f "$work/log/${file##*/}"
    done
    number=$(($(bytes "$fork") / size)) each=$((4294967296 / size))
    segment=$(printf '%s%08X%08X' "$prefix" $((number / each)) $((number % each)))
    [ ! -e "$work/log/$segment" ] || return 0
    newest=$(ls "$work/log" | tail -n 1)
    [ "$(bytes "$(about 'Latest checkpoint location')")" -ge "$(bytes "$fork")" ] || expr "$newest" '>' "$segment" >/dev/null || return 1
    fail Fatal "the log $segment, in which they parted, is neither in $DATA/pg_wal nor in $ARCHIVE any more: what only $DATA has cannot be told"
}
# Into "xids" what was committed after fork, into "rows" what that did: kind, database, file, block and place in it, and the
# place of the new version. Transactions are counted in "count", committed
# from "first" to "last"; the last record is at "end".
read_log() {
    : >"$work/xids" && : >"$work/all" && : >"$work/rows"
    gather || { count=0 end=$fork first=- last=- && return; }
    TZ=UTC "$BIN/pg_waldump" -p "$work/log" -t "$line" -s "$fork" 2>"$work/error" | awk -v xids="$work/xids" -v all="$work/all" '
        function after(text, word,  i) { i = index(text, word); return i ? substr(text, i + length(word)) : "" }
        !/^rmgr: / { next }
        {
            xid = after($0, "tx:"); gsub(/^ +|,.*/, "", xid) # as text: a number of so many digits is none to every awk
            last = after($0, "lsn: "); sub(/,.*/, "", last)
            what = after($0, "desc: "); kind = what; sub(/[ +:].*/, "", kind)
        }
        $2 == "Transaction" && (kind == "COMMIT" && xid != "0" || kind == "COMMIT_PREPARED") {
            at = kind == "COMMIT" ? after(what, "COMMIT ") : after(what, ": ")
            if (kind == "COMMIT_PREPARED") { xid = after(what, "COMMIT_PREPARED "); sub(/:.*/, "", xid) }
            split(at, word, " "); time = word[1] "T" word[2] "Z"
            if (!count++) first = time
            print xid >xids
            subs = after(what, "subxacts: "); sub(/;.*/, "", subs)
            n = split(subs, sub_, " ")
            for (i = 1; i <= n; i++) print sub_[i] >xids
        }
        ($2 == "Heap" || $2 == "Heap2") && xid != "0" && kind ~ /^(INSERT|MULTI_INSERT|UPDATE|HOT_UPDATE|DELETE)$/ {
            split(after($0, "blkref #0: rel "), word, /[\/ ]/) # space, database, file, "blk", number
            # An update that finds no room beside the old version tells the page of that second.
            if (!split(after($0, "blkref #1: rel "), old, /[\/ ]/)) old[5] = word[5]
            gsub(/:/, "", what) # as versions before 16 have it
            sub(/old_off/, "off", what); sub(/new_off/, "new off", what)
            from = after(what, " off ") + 0
            to = kind == "INSERT" ? from : after(what, "new off ") + 0
            print xid, kind, word[2], word[3], old[5] + 0, from, word[5] + 0, to >all
        }
        END { print count + 0, count ? first : "-", count ? time : "-", last == "" ? "-" : last }' >"$work/commits"
    # It is read until something is no record any more; what else ends it is a fault.
    grep -qE 'error in WAL record at|could not find a valid record|could not find file' "$work/error" ||
        fail Fatal "the log after $fork cannot be read: $(tail -n 1 "$work/error")"
    [ -s "$work/commits" ] || full
    awk 'NR == FNR { committed[$1]; next } $1 in committed { sub(/^[^ ]* /, ""); print }' "$work/xids" "$work/all" >"$work/rows" || full
    read -r count first last end <"$work/commits"
    [ "$end" != - ] || end=$fork
    [ "$(bytes "$end")" -ge "$(bytes "$(about 'Latest checkpoint location')")" ] ||
        fail Fatal "the log of $DATA breaks off at $end, before its last checkpoint: what only $DATA has cannot be told"
}
put_back() { # stop what reads DATA, or serves it as a standby, and let nothing of an export be left in there
    (COPY=$fold/reading && halt "$(identity "$DATA")") || exit
    options_back
}
