# Let a store take writes only while it has LEAST replicas that are at most LAG seconds behind,
# if EXPECTED ("least lag") still holds; keep that over a restart. With CLOSED no write may be taken then: it is tried.
. ./store.sh
look
gate
if [ "$open" != "$LEAST $LAG" ]; then
    [ "$open" = "$EXPECTED" ] || fail Drifted "somebody else changed when $at takes writes, since it was looked at"
    ask config set min-replicas-to-write "$LEAST" min-replicas-max-lag "$LAG"
fi
if [ "$CLOSED" != yes ]; then
    kept
    exit 0
fi
kept_tried
[ "$tried" = refused ] || fail Fatal "$at still takes writes"
