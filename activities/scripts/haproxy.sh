# What the scripts about an HAProxy share: how its runtime API at SOCKET is asked, and what its answers mean.
export LC_ALL=C
fail() { echo "$1: $2" >&2; exit 3; }
ask() { # $1 commands, ";" between them: "told" is what it answers
    command -v socat >/dev/null || fail Fatal "socat is needed on this host to ask HAProxy at $SOCKET; install it"
    # Not by timeout: that works in a process group of its own, which a stop of the job's would not reach.
    told=$(printf '%s\n' "$1" | socat -T 8 -t 8 - "UNIX-CONNECT:\"$SOCKET\"" 2>&1) || case $told in
        *'ermission denied'*) fail Refused "$SOCKET does not let this user in; make it a member of the socket's group" ;;
        *) fail Transient "HAProxy does not answer at $SOCKET; does it run there?" ;;
    esac
    case $1:$told in
        show*:) fail Transient "HAProxy says nothing at $SOCKET; see whether it is well" ;;
        *'Permission denied'*) fail Refused "the socket $SOCKET is not of level admin, so nothing can be changed over it" ;;
        *"Can't find backend"*) fail Refused "HAProxy at $SOCKET has no backend $BACKEND; see its configuration" ;;
    esac
}
servers() { # $1 what is said before each: reads rows of "show servers state", tells those of BACKEND
    awk -v backend="$BACKEND" -v OFS='\t' -v word="$1" '$1 ~ /^[0-9]+$/ && $2 == backend { print word, $4, $7 }'
}
