# Remove the base backup BACKUP, if its LABEL is this recovery's.
export LC_ALL=C
if [ -e "$BACKUP" ]; then
    grep -qxF "LABEL: $LABEL" "$BACKUP/backup_label" || { echo "Drifted: $BACKUP is another backup" >&2; exit 3; }
    mv -T "$BACKUP" "$BACKUP.partial" # from here on it is no backup that anybody could take for whole
fi
rm -rf "$BACKUP.partial"
