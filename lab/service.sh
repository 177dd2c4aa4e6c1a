# start | stop | status | reload | well of one program of a host. It is whoever holds the lock: a pid alone may be somebody else's.
# What was started is wanted (the file "enabled") until it is stopped: also after its site was lost and comes back.
set -u
cd "$FOLDER" || exit 1
umask 077
runs() { ! flock -ns lock true; }
case ${1:-} in
    start)
        : >enabled
        ! runs || exit 0
        exec 9>>lock
        flock -w 1 9 || exit 0
        rm -f ready
        # It holds the lock from here on, carries no job's mark, and does not end with the session that starts it.
        env -u RECOVERY_JOB setsid "$PROGRAM" "$FOLDER" </dev/null >>log 2>&1 &
        echo $! >pid
        exec 9>&-
        until [ -e ready ]; do
            runs || { tail -n 1 log >&2 && exit 1; }
            sleep 0.02
        done
        ;;
    stop)
        rm -f enabled
        runs || exit 0
        kill -TERM "$(cat pid)" 2>/dev/null
        ! flock -w 5 lock true || exit 0
        kill -KILL "$(cat pid)" 2>/dev/null
        flock -w 5 lock true
        ;;
    status)
        runs || { echo "does not run" && exit 1; }
        echo "runs"
        ;;
    reload) # its configuration; what does not run reads that when it starts
        runs || exit 0
        kill -HUP "$(cat pid)"
        tries=0
        until read -r said sum <loaded && [ "$sum" = "$(sha256sum <config/orders.conf | cut -c1-64)" ]; do
            tries=$((tries + 1))
            [ $tries -lt 250 ] || { echo "it does not read its configuration" >&2 && exit 1; }
            sleep 0.02
        done
        [ "$said" = good ] || { echo "its configuration cannot be understood" >&2 && exit 1; }
        ;;
    well) # what it has read is what lies there, and lets it take orders
        grep -Eqx 'max_amount=0*[1-9][0-9]*' config/orders.conf || { echo "its configuration allows no orders" && exit 1; }
        runs || exit 0
        read -r said sum <loaded
        [ "$said $sum" = "good $(sha256sum <config/orders.conf | cut -c1-64)" ] ||
            { echo "it has not read its configuration" && exit 1; }
        ;;
    *)
        echo "start, stop, status, reload or well" >&2
        exit 2
        ;;
esac
