# Tell whether the base backup BACKUP stands, and of whom it is. Changes nothing.
export LC_ALL=C
[ ! -e "$BACKUP" ] || printf 'backup\t%s\nlabel\t%s\n' "${BACKUP##*/}" "$(sed -n 's/^LABEL: //p' "$BACKUP/backup_label" 2>/dev/null)"
[ ! -e "$BACKUP.partial" ] || printf 'partial\tyes\n'
