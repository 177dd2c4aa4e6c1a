# Tell whether the backup that says LABEL stands, and of whom it is, or half of it. Changes nothing.
. ./running.sh
. ./backups.sh
backup_taken
