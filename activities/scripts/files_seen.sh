# Print what there is of PATHS (one a line) under TO: kind, SHA-256, mode, owner, then the path; and whose a new one is.
# An unfinished change of this recovery tells so by KEEP.
cd "$TO" 2>/dev/null || { echo "Invalid: to: $TO is no folder that this login can enter" >&2; exit 65; }
if [ "$(id -u)" = 0 ]; then owner=$(stat -c %u:%g .); else owner=$(id -u):$([ -g . ] && stat -c %g . || id -g); fi
printf 'new\t%s\n' "$owner"
{ [ ! -e "$KEEP.partial" ] && [ ! -e "$KEEP/pending" ]; } || printf 'pending\n'
printf '%s' "$PATHS" | while IFS= read -r path; do
    if [ -L "$path" ] || { [ -e "$path" ] && [ ! -f "$path" ]; }; then
        printf 'odd\t\t\t\t%s\n' "$path"
    elif [ -f "$path" ]; then
        sum=$(sha256sum <"$path" 2>/dev/null | cut -c1-64)
        kind=file
        { [ -r "$path" ] && [ "$sum" ]; } || kind=unreadable
        case $(stat -c %A "$path") in *w*) [ -w "$path" ] && [ -w "$(dirname "$path")" ] || kind=shut ;; *) kind=shut ;; esac
        # Replaced by a login that cannot give files away, it would be that login's.
        [ "$(id -u)" = 0 ] || [ -O "$path" ] || kind=foreign
        printf '%s\t%s\t%s\t%s\t%s\n' "$kind" "$sum" "$(stat -c %a "$path")" "$(stat -c %u:%g "$path")" "$path"
    else
        up=$(dirname "$path")
        while [ ! -e "$up" ]; do up=$(dirname "$up"); done
        { [ -d "$up" ] && [ -w "$up" ]; } || { printf 'shut\t\t\t\t%s\n' "$path"; continue; }
        printf 'none\t\t\t\t%s\n' "$path"
    fi
done
