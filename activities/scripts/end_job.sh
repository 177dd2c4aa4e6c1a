# Kill the job NAME of the folder JOBS with everything that it started, wait until it is gone, remove its files.
d=$JOBS/$NAME
[ -d "$d" ] || exit 0
if [ -e "$d/group" ] && ! flock -n "$d/lock" true; then
    group=$(cat "$d/group")
    kill -TERM "-$group" 2>/dev/null
    flock -w 2 "$d/lock" true || kill -KILL "-$group" 2>/dev/null
fi
flock -w 5 "$d/lock" rm -rf "$d" || { echo "Transient: the job is still running" >&2; exit 75; }
