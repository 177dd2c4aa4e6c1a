# The program that fetches a file of the log: sh fetch NAME PATH [HOW].
# It comes from where the backups are, else from what the running database has not archived yet; a file cut short is none.
. ./backups.sh
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }
fetcher() { # $1 bytes of a segment
    printf 'running=%s/pg_wal size=%s\n' "$(quoted "$DATA")" "$1"
    cat <<'FETCH'
whole() {
    case $1 in
        *.history) [ -f "$2" ] ;;
        *) [ "$(stat -Lc %s "$2" 2>/dev/null)" = "$size" ] ;;
    esac
}
(
FETCH
    fetch_command
    cat <<'FETCH'
) && whole "$1" "$2" && exit 0
rm -f "$2"
whole "$1" "$running/$1" && ${3:-cp} "$running/$1" "$2"
FETCH
}
