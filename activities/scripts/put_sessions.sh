# Put into the store what PLAN (its digest) in OUT says, each session whole and only where it is as it was seen.
# What was done is written into the store with it, under MARK; what was there is under MARK, too, until people say.
. ./snapshot.sh
umask 077
cd "$OUT" || exit
[ "$(sum plan.tsv)" = "$PLAN" ] || fail Drifted "$OUT/plan.tsv is not what was decided on"
look
[ -z "$of" ] || fail Refused "$at is a replica (of $of); sessions are put where they are taken"
# No file before that: where the store knows nothing of it, nobody takes anything away.
printf 'EVAL "%s" 0 begin %s\n' "$TEXT" "$MARK" | outside /dev/stdin | grep -v '^$' | refused || exit
: >begun # after that: who finds it, and nothing in the store, knows that what was done was lost there
serve
secret=$(printf '%s' "${REDISCLI_AUTH:-}" | od -An -v -tx1 | tr -d ' \n')
left() { # what is not decided yet
    awk -F '\t' '$2 == "add" || $2 == "replace" { print $1 }' plan.tsv | calls EVAL_RO "pending $MARK" 200 >asked
    outside asked | tr -d '\r' >part
    grep -vE '^([0-9a-f][0-9a-f])*$' part | refused || exit
    awk -F '\t' 'FILENAME == "part" { if ($1 != "") open[$1]; next } $1 in open { print $1 " " $3 " " $4 }' part plan.tsv >todo
}
turns=0
while left && [ -s todo ]; do
    turns=$((turns + 1))
    [ "$turns" -le 3 ] || later "$(wc -l <todo) sessions do not arrive at the store"
    rm -f round.*
    split -l 1000 -a 4 todo round.
    for round in round.*; do
        cut -d ' ' -f 1 "$round" | calls EVAL "stage $MARK $ADDRESS $PORT ${secret:--}" 50 | inside 2>&1 | refused || exit
        calls EVAL "commit $MARK" 20 <"$round" >asked
        outside asked | grep -v '^missing ' | refused || exit
    done
done
rm -f todo asked part round.*
