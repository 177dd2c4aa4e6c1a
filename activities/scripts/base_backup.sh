# Take the next full backup of the database at SOCKETS, which says LABEL of itself; run again it is not taken twice.
. ./running.sh
. ./backups.sh
take_backup
