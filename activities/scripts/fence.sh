# Stop the server of the running database in whatever state it is, and put DATA aside as FENCED, where nobody starts it.
. ./running.sh
# Whoever was let in again since has written what was not exported.
[ "$(identity "$DATA")" != "$IDENTITY" ] || [ ! -e "$COPY/kept/pg_hba.conf" ] || [ "$(digest "$DATA/pg_hba.conf")" = "$SHUT" ] ||
    fail Drifted "somebody else changed pg_hba.conf since clients were shut out; put back $COPY/kept/guard, or go back"
server=$(postmaster "$IDENTITY")
[ -z "$server" ] || [ -e "$COPY/kept/log" ] || remember log "$(readlink "/proc/$server/fd/1")"
remember fencing "$IDENTITY" # from here on it may be stopping, although it still serves
halt "$IDENTITY"
if [ "$(identity "$DATA")" = "$IDENTITY" ]; then
    [ ! -e "$FENCED" ] || fail Drifted "$FENCED stands there already"
    mv -T "$DATA" "$FENCED" || fail Fatal "$DATA cannot be moved to $FENCED: may this login write into $(dirname "$DATA")?"
fi
[ "$(identity "$FENCED")" = "$IDENTITY" ] || fail Drifted "the running database is neither in $DATA nor in $FENCED"
halt "$IDENTITY" # somebody may have started it at the last moment
