# Put the running database back in its place, and start it if it SERVED.
. ./running.sh
if [ "$(identity "$DATA")" = "$IDENTITY" ]; then
    [ ! -e "$COPY/kept/fencing" ] || halt "$IDENTITY" # it may be about to end
else
    [ ! -e "$DATA" ] || fail Drifted "somebody else has put something in the place of the running database: $DATA"
    [ "$(identity "$FENCED")" = "$IDENTITY" ] || fail Drifted "the running database is neither in $DATA nor in $FENCED"
    halt "$IDENTITY"
    mv -T "$FENCED" "$DATA" || later "$FENCED cannot be moved to $DATA"
fi
[ "$SERVED" = no ] || launch "$DATA/postmaster.opts"
rm -f "$COPY/kept/fencing"
