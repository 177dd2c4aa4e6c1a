# Make the database in DATA the standby that it was, of the one at UPSTREAM; what it wrote meanwhile is discarded.
. ./running.sh
. ./standing_by.sh
restores=yes
[ ! -e "$COPY/kept/role" ] || join
drop
