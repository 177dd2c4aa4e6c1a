# Tell the state of each server of a backend, what the state file has of it, and whether a restart would read that.
. ./haproxy.sh
ask "show servers state $BACKEND"
printf '%s\n' "$told" | servers server
[ ! -e "$STATE" ] || servers kept <"$STATE" || fail Refused "the state file $STATE cannot be read by this user"
if files=$(find "$CONFIGURATION" -type f -print 2>/dev/null) && [ -n "$files" ] &&
    find "$CONFIGURATION" -type f -exec cat {} + 2>/dev/null | awk -v file="${STATE##*/}" '
        { sub(/#.*/, "") }
        $1 == "server-state-file" && $2 ~ "(^|/)" file "$" { named = 1 }
        $1 == "load-server-state-from-file" && $2 != "none" { loads = 1 }
        END { exit !(named && loads) }'; then
    printf 'keeps\tyes\n'
fi
