# Run the script on standard input as the one job of this name: start it, or attach to it, and wait for its end.
# It outlives this connection. Its success stays until "forget"; nothing runs twice at once.
# $1 folder of the jobs, $2 name, $3 SHA-256 of the script (a connection cut in the middle must not run half of it),
# $4 file of the lease, $5 hand
. ./hand.sh
. ./grown.sh
set -u
umask 077
d=$1/$2
body=$(cat)
sum=$(printf '%s' "$body" | sha256sum)
if [ "${sum%% *}" != "$3" ]; then
    echo "Transient: the script arrived incomplete" >&2
    exit 75
fi
[ -d "$1" ] || mkdir -p "$1" || exit 73
allowed "$1" || exit
take_in_hand "$1" "$2" "$4" "$5" || exit # until it runs nobody else takes it in hand
ended() { # sets "rc": how it ended, "" while that is not known
    rc=
    [ ! -e "$d/rc" ] || read -r rc <"$d/rc" || :
}
[ -d "$d" ] || first=yes
mkdir -p "$d" && exec 9>>"$d/lock" 7<"$d/lock" || exit 73
# Nobody holds the lock: it was never started, it has ended, or its shell was killed. Only a success needs no other try.
if flock -n 9 && ended && [ "$rc" != 0 ]; then
    # What a killed shell leaves running must not act beside its successor; the first of this name has nobody before it.
    while [ -z "${first:-}" ] && left=$(left_of "$d" "$2") && [ -n "$left" ]; do
        kill -KILL $left 2>/dev/null
        sleep 0.02
    done
    [ -n "${first:-}" ] || rm -f "$d/rc" "$d/progress"
    # Its result has room from the start: on a full disk it must be told too.
    if ! { printf '%s\n' "$body" >"$d/body" && echo >"$d/err" && echo >"$d/rc.new"; }; then
        echo "Transient: the job cannot be written into $1: is the disk full?" >&2
        exit 75
    fi
    unset RECOVERY_STARTS
    RECOVERY_JOB=$2 setsid sh -c '
        sh "$1/body" </dev/null >"$1/out" 2>>"$1/err" 9>&- &
        wait $!
        echo $? 1<>"$1/rc.new" && mv "$1/rc.new" "$1/rc"' job "$d" 7<&- 8>&- </dev/null >/dev/null 2>&1 &
    echo $! >"$d/group"
fi
exec 8>&- 9>&-
rest=200
while flock -w "${rest%??}" 7; [ $? = 1 ]; do # the kernel wakes us when the job's shell has ended
    rest=200
    { read -r done total more <"$d/progress"; } 2>/dev/null || continue
    if [ "$done" = - ]; then # a folder that grows: it is looked at only here, while somebody wants to know
        grown "$more"
        [ "$rest" -ge 200 ] || rest=200
        done=$((kilobytes * 1024)) more=
    fi
    printf 'progress\t%s\n' "$done $total $more" >&2
done
exec 7<&-
ended
if [ -z "$rc" ]; then
    echo "Transient: the job was killed on the host" >&2
    exit 75
fi
[ ! -s "$d/out" ] || cat "$d/out"
tail -c 4000 "$d/err" >&2
exit "$rc"
