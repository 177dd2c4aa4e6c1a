# Stop the primary in DATA in order, so that its standby gets all that it has, and let it never come up as a primary.
. ./running.sh
. ./standing_by.sh
keep_settings
remember retiring "$OWNER"
: >"$DATA/standby.signal" || full # first: whoever starts it from here on starts a standby
halt "$(identity "$DATA")"
