# Tell of every key of a store that MATCHes, so many at a time (COUNT), as the text READ (Lua) does.
# The store works on in between; the offset is that of its log before.
. ./store.sh
look
printf 'offset\t%s\n' "$(offset)"
cursor=0
while :; do
    ask eval_ro "$READ" 0 scan "$cursor" "$COUNT" "$MATCH"
    printf '%s\n' "$told"
    case $first in "cursor "*) cursor=${first#cursor } ;; *) fail Refused "$at does not read for us: $(short)" ;; esac
    [ "$cursor" != 0 ] || exit 0
done
