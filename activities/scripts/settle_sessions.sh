# Have each session that was put into the store taken "back", or "forget" how it was before: HOW says which.
# What clients have written since stays; it is listed in OUT.stayed.tsv.
. ./snapshot.sh
umask 077
cd "$OUT" || exit
[ "$(sum plan.tsv)" = "$PLAN" ] || fail Drifted "$OUT/plan.tsv is not what was decided on"
awk -F '\t' '$2 == "add" || $2 == "replace" { print $1 }' plan.tsv | calls EVAL "$HOW $MARK" 20 >asked
outside asked | tr -d '\r' >said
sed -n 's/^stayed //p' said >stayed.tsv
grep -v '^stayed ' said | refused || exit
if [ -s stayed.tsv ]; then mv stayed.tsv "$OUT.stayed.tsv"; else rm -f stayed.tsv; fi
rm -f asked said part todo round.* begun socket log # what remembers it in the store goes last
printf 'EVAL "%s" 0 over %s\n' "$TEXT" "$MARK" | outside /dev/stdin | refused || exit
