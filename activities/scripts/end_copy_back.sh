# End what a killed copy_back or take_back left in the running database and beside the copy: after this its end is known.
. ./both_sides.sh
. ./end_sessions.sh
[ -e "$COPY/owner" ] || exit 0
exec 8<"$COPY/owner"
flock -n 8 || exit 0 # its successor is at work already
end_sessions
went=$(went)
sure "$went"
[ "$(cat "$COPY/owner")" = "$OWNER" ] || exit 0
if [ "$went" = put ]; then rm -rf "$extract/scratch"; else rm -rf "$extract"; fi
