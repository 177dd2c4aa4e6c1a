# Tell what the database in DATA has that the one at UPSTREAM, which took over from it, never had: by its log. Changes nothing.
. ./running.sh
. ./parted.sh
full() { later 'nothing can be written into the folder for temporary files'; }
work=$(mktemp -d) || full
trap 'rm -rf "$work"' EXIT
part
printf 'line\t%s\nfork\t%s\n' "$line" "$fork"
[ -n "$fork" ] || exit 0
read_log
printf 'commits\t%s\nend\t%s\n' "$count" "$end"
[ "$count" = 0 ] || printf 'first\t%s\nlast\t%s\n' "$first" "$last"
