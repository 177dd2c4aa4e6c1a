# Put the running database back in its place, and start it if it SERVED.
. ./running.sh
fencing=$COPY/kept/fencing
if [ "$(identity "$DATA")" = "$IDENTITY" ]; then
    [ ! -s "$fencing" ] || halt "$IDENTITY" # it may be about to end
else
    [ ! -e "$DATA" ] || fail Drifted "somebody else has put something in the place of the running database: $DATA"
    [ "$(identity "$FENCED")" = "$IDENTITY" ] || fail Drifted "the running database is neither in $DATA nor in $FENCED"
    halt "$IDENTITY"
    mv -T "$FENCED" "$DATA" || later "$FENCED cannot be moved to $DATA"
fi
# Empty, which takes no room on a full disk: whatever runs there from here on was started to stay. An attempt that is cut
# in a long crash recovery is not to begin it anew.
[ ! -e "$fencing" ] || : >"$fencing"
[ "$SERVED" = no ] || launch "$DATA/postmaster.opts"
rm -f "$fencing"
