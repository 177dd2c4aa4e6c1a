# Let the database in DATA be the primary that it was, and start it if it SERVED.
. ./running.sh
. ./standing_by.sh
mkdir -p "$COPY/kept" || full # what is begun below is waited for there
[ -e "$COPY/kept/retiring" ] || [ ! -e "$DATA/standby.signal" ] || fail Drifted "somebody else made $DATA a standby"
if [ -e "$DATA/standby.signal" ]; then
    halt "$(identity "$DATA")" # whoever started it meanwhile started a standby
    rm -f "$DATA/standby.signal"
fi
[ "$SERVED" = no ] || launch "$DATA/postmaster.opts"
drop
