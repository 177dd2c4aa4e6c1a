# Kill the job NAME of the folder JOBS with everything that it started, wait until it is gone, remove its files.
. ./hand.sh
d=$JOBS/$NAME
[ ! -d "$JOBS" ] || take_in_hand "$JOBS" "$NAME" "$LEASE" "$HAND" || exit # what a later hand has begun goes on
# Almost always nothing of it is left, and one look at all processes tells.
if grep -qszxF -e "RECOVERY_STARTS=$NAME" -e "RECOVERY_JOB=$NAME" -e "RECOVERY_COMMAND=$NAME" /proc/[0-9]*/environ; then
    # Whoever still waits for the text of the job would begin it later, when nobody is there to see it.
    begins=$(grep -lszxF "RECOVERY_STARTS=$NAME" /proc/[0-9]*/environ | cut -d/ -f3)
    [ -z "$begins" ] || kill -KILL $begins 2>/dev/null
    if [ -e "$d/group" ] && ! flock -n "$d/lock" true; then
        group=$(cat "$d/group")
        kill -TERM "-$group" 2>/dev/null
        flock -w 2 "$d/lock" true || kill -KILL "-$group" 2>/dev/null
    fi
    # What does not stop, or was left running by a shell that somebody killed, still carries the job's name.
    tries=0
    while [ -d "$d" ] && left=$(left_of "$d" "$NAME") && [ -n "$left" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 250 ] || { echo "Transient: the job is still running" >&2; exit 75; }
        kill -KILL $left 2>/dev/null
        sleep 0.02
    done
fi
[ -d "$d" ] || exit 0
flock -w 5 "$d/lock" rm -rf "$d" || { echo "Transient: the job is still running" >&2; exit 75; }
