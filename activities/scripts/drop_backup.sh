# Remove the backup that says LABEL, whole or half, and no other one.
. ./running.sh
. ./backups.sh
drop_taken
