# Stop the database in DATA, and let it never come up as a primary: it is to follow the one that is opened again.
. ./running.sh
[ ! -d "$DATA" ] || : >"$DATA/standby.signal" || full
halt "$(identity "$DATA")"
# What it archived as a primary is nobody's history, and stands in the way of the next one's.
before=$(cat "$COPY/kept/timeline" 2>/dev/null)
[ -z "$before" ] || find "$ARCHIVE" -maxdepth 1 -type f -newer "$COPY/kept/promoted" 2>/dev/null | while read -r file; do
    name=${file##*/} line=${name#.}
    case $name in *.partial) expr "${line%"${line#????????}"}" '>=' "$before" >/dev/null && rm -f "$file" ;; esac
    ! expr "${line%"${line#????????}"}" '>' "$before" >/dev/null || rm -f "$file"
done
rm -f "$COPY/kept/promoted" "$COPY/kept/timeline" "$COPY/kept/written" "$COPY/kept/asked"
rmdir "$COPY/kept" "$COPY" 2>/dev/null || true
