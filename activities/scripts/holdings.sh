# Tell which backups lie in BACKUPS, and which log in ARCHIVE, as far as that has been there for SETTLED seconds.
# Of each backup it tells the digest of its manifest, how many files it has, and their bytes. Changes nothing.
export LC_ALL=C
[ -d "$BACKUPS" ] && [ -r "$BACKUPS" ] || printf 'fault\tthe folder %s cannot be read\n' "$BACKUPS"
[ -d "$ARCHIVE" ] && [ -r "$ARCHIVE" ] || printf 'fault\tthe folder %s cannot be read\n' "$ARCHIVE"
until=$(($(date +%s) - SETTLED))
for b in "$BACKUPS"/*/; do
    b=${b%/}
    [ -f "$b/backup_manifest" ] || continue # it is being taken, or was given up
    [ "$(stat -c %Y "$b/backup_manifest")" -le "$until" ] || continue
    digest=$(sha256sum <"$b/backup_manifest")
    printf 'backup\t%s\t%s\t%s\n' "${b##*/}" "${digest%% *}" \
        "$(find "$b" -type f -printf '%s\n' 2>/dev/null | awk '{ bytes += $1 } END { printf "%d\t%.0f", NR, bytes }')"
done
find "$ARCHIVE" -maxdepth 1 -type f ! -newermt "@$until" -printf 'wal\t%f\t%s\n' 2>/dev/null
