# Stop the database in DATA, and let it never come up as a primary: it is to follow the one that is opened again.
. ./running.sh
[ ! -d "$DATA" ] || : >"$DATA/standby.signal" || full
halt "$(identity "$DATA")"
