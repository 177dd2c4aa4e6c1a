# Make the database in DATA, which was stopped for good, a standby of the one at UPSTREAM.
. ./running.sh
. ./standing_by.sh
keep_settings
remember joining "$OWNER"
join
drop
