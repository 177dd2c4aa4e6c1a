# Make a store a replica of WANTED ("" for a primary), if it still is what EXPECTED says; keep that over a restart.
# What it has written after UPTO, or in another history than HISTORY, WANTED has not: it is discarded only where DISCARD
# says so. COPIED waits until it has all of WANTED. UNFINISHED tells that a copy that is under way may be given up.
# TRIED has it prove that it takes writes.
. ./store.sh
only() { # in bytes of the log, or why that is not known
    if [ "$(field master_replid)" != "$HISTORY" ]; then
        echo "has another history than $WANTED: all that it holds"
    elif [ "$(field master_repl_offset)" -gt "$UPTO" ]; then
        echo "has written $(($(field master_repl_offset) - UPTO)) bytes of log that $WANTED has not: these"
    fi
}
look
if [ "$of" != "$WANTED" ]; then
    [ "$of" = "$EXPECTED" ] || fail Drifted "$at is somebody else's replica, or none, since it was looked at"
    if [ -z "$WANTED" ]; then
        [ "$(field master_sync_in_progress)" != 1 ] || [ "$UNFINISHED" = yes ] ||
            fail Refused "$at is being filled with a copy of $of; what it has now is old. Wait for the end of that"
        ask replicaof no one
    else
        [ "$DISCARD" = yes ] || lost=$(only)
        [ -z "${lost:-}" ] || fail Refused "$at $lost would be discarded. See what that is, then say so (discard)"
        ask replicaof "${WANTED%:*}" "${WANTED##*:}"
    fi
fi
if [ "$TRIED" != yes ]; then
    kept
else
    kept_tried
    [ "$tried" = taken ] || fail Fatal "$at is a primary, and takes no write: see its min-replicas-to-write"
fi
[ "$COPIED" = yes ] || exit 0
idle=$(date +%s)
while look && [ "$(field master_link_status)" != up ]; do
    [ "$of" = "$WANTED" ] || fail Drifted "$at was made something else while it was being filled"
    [ "$(field master_sync_in_progress)" != 1 ] || idle=$(date +%s)
    [ $(($(date +%s) - idle)) -lt 30 ] ||
        later "$at does not come to replicate $WANTED: can it reach that, does its primaryauth fit?"
    sleep 0.1
done
