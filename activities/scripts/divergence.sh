# Tell what the database in DATA has that the one at UPSTREAM, which took over from it, never had: by its log. Changes nothing.
. ./running.sh
. ./parted.sh
WORK=$(mktemp -d) || later 'nothing can be written into the folder for temporary files'
trap 'rm -rf "$WORK"' EXIT
part
printf 'line\t%s\nfork\t%s\n' "$LINE" "$FORK"
[ -n "$FORK" ] || exit 0
read_log
printf 'commits\t%s\nend\t%s\n' "$COUNT" "$END"
[ "$COUNT" = 0 ] || printf 'first\t%s\nlast\t%s\n' "$FIRST" "$LAST"
