# Copy SNAPSHOT into OUT, for OWNER, and plan there what of its sessions, whose keys fit MATCH, goes into the store.
# Of two versions the one whose FIELD (in hex; "-" for none) is higher is the newer, else the one that expires later.
. ./snapshot.sh
file=$SNAPSHOT fold=$OUT.partial
[ ! -d "$SNAPSHOT" ] || file=$SNAPSHOT/sessions.rdb
full() { fail Fatal "nothing can be written into $fold: is the disk full? Free room under $(dirname "$OUT")"; }
[ ! -e "$OUT" ] || fail Drifted "$OUT stands there already"
[ ! -s "$fold/owner" ] || [ "$(cat "$fold/owner")" = "$OWNER" ] || fail Drifted "$fold belongs to another recovery"
umask 077
rm -rf "$fold"
mkdir -p "$fold" && printf '%s' "$OWNER" >"$fold/owner" || full
cp "$file" "$fold/sessions.rdb" && cd "$fold" || full
[ "$(sum sessions.rdb)" = "$DIGEST" ] || fail Drifted "$file is not what it was when it was looked at"
serve
cursor=0
: >read
while :; do
    inside eval_ro "$TEXT" 0 read "$FIELD" "$cursor" 1000 "$MATCH" >part || later "the snapshot's server went away"
    IFS=' ' read -r word cursor more <part
    [ "$word" = cursor ] || fail Fatal "$SERVER does not read sessions as Valkey (or Redis 7) does: $(head -c 150 part)"
    others=$((${others:-0} + more))
    sed 1d part >>read || full
    [ "$cursor" != 0 ] || break
done
LC_ALL=C sort -u -k 1,1 read | grep . >rows || :
look
cut -d ' ' -f 1 rows | calls EVAL_RO "ask $FIELD" 50 >asked || full
outside asked | tr -d '\r' >part
grep -vE '^([0-9a-f]+ [a-zA-Z0-9_-]+,-?[0-9]+,[~0-9a-f-]+ [a-z0-9-]+)?$' part | refused || exit
LC_ALL=C awk -v OFS='\t' -v plan=plan.tsv '
    function newer(one, other, expires, then) { # whether what the snapshot has is
        if (one != "-" && other != "-" && substr(one, 1, 1) == substr(other, 1, 1) && one "" != other "")
            return one "" > other ""
        return expires + 0 >= 0 && then + 0 >= 0 && expires + 0 > then + 0
    }
    BEGIN { print "# key, in hex", "what is done", "in the snapshot: type,expires,digest", "at the store" >plan }
    !/./ { next }
    FILENAME == "part" { at[$1] = $2; mark[$1] = $3; next }
    {
        how = "add"; split($2, new, ",")
        if ($1 in at) {
            split(at[$1], old, ",")
            later = newer($3, mark[$1], new[2], old[2])
            if (old[3] ~ /^[~-]/) how = "unsure"
            else if (new[1] == old[1] && new[3] == old[3] && !later) how = "same"
            else how = later ? "replace" : "keep"
        }
        count[how]++
        if (how != "same") print $1, how, $2, ($1 in at ? at[$1] : "none") >plan
    }
    END {
        print "fits", FNR
        for (way = split("same add replace keep unsure", all, " "); way; way--) print all[way], count[all[way]] + 0
    }' part rows >counts || full
elsewhere=$(inside info keyspace | tr -d '\r' | sed -n 's/^db[1-9][0-9]*:keys=\([0-9]*\).*/\1/p' | awk '{ all += $1 } END { print all + 0 }')
used=$(inside info memory | tr -d '\r' | sed -n 's/^used_memory_dataset://p')
here=$(inside dbsize | tr -d '\r')
{
    printf 'bytes\t%s\ndigest\t%s\n' "$(stat -c %s sessions.rdb)" "$DIGEST"
    printf 'plan\t%s\n' "$(sum plan.tsv)"
    printf 'keys\t%s\nothers\t%s\nelsewhere\t%s\n' "$KEYS" "$others" "$elsewhere"
    printf 'each\t%s\n' "$((${used:-0} / ((${here:-0} + elsewhere) > 0 ? here + elsewhere : 1)))"
    cat counts
} >manifest.tsv || full
leave
rm -f read part rows asked counts
cd / && sync "$fold"/* && mv -T "$fold" "$OUT" || full
