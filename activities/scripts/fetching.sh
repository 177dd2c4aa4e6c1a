# The program that fetches a file of the log: sh fetch NAME PATH [HOW].
# It takes it by the estate's own command RESTORE if there is one, else from ARCHIVE, else from what the running
# database has not archived yet; a file cut short is no log.
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }
fetcher() { # $1 bytes of a segment
    cat <<FETCH
own=$(quoted "$RESTORE") archive=$(quoted "$ARCHIVE") running=$(quoted "$DATA")/pg_wal size=$1
FETCH
    cat <<'FETCH'
whole() {
    case $1 in
        *.history) [ -f "$2" ] ;;
        *) [ "$(stat -Lc %s "$2" 2>/dev/null)" = "$size" ] ;;
    esac
}
if [ -n "$own" ]; then
    percent=$(printf '\001') # as PostgreSQL reads it: %% is a percent sign
    sh -c "$(printf '%s' "$own" | sed "s|%%|$percent|g; s|%f|$1|g; s|%p|$2|g; s|$percent|%|g")" </dev/null &&
        whole "$1" "$2" && exit 0
    rm -f "$2"
elif whole "$1" "$archive/$1"; then
    ${3:-cp} "$archive/$1" "$2" && exit 0
fi
whole "$1" "$running/$1" && ${3:-cp} "$running/$1" "$2"
FETCH
}
