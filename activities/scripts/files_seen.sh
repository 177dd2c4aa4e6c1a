# Print what there is of PATHS (one a line) under TO: kind and path; of each file rights, owner and path, then its sum;
# and whose a new one is, and whether this recovery has begun a change here (KEEP) and not ended it.
cd "$TO" 2>/dev/null || { echo "Invalid: to: $TO is no folder that this login can enter" >&2; exit 65; }
while read -r what _ id _; do # as "id" would tell, of this shell
    case $what in Uid:) me=$id ;; Gid:) group=$id && break ;; esac
done </proc/self/status
if [ "$me" = 0 ] || [ -g . ]; then owner=$(stat -c %u:%g .); else owner=$me:$group; fi
[ "$me" = 0 ] || owner=$me:${owner#*:}
printf 'new\t%s\n' "$owner"
{ [ ! -e "$KEEP.partial" ] && [ ! -e "$KEEP/pending" ]; } || printf 'pending\n'
up_of() { case $1 in */*) up=${1%/*} ;; *) up=. ;; esac; }
set --
while IFS= read -r path; do
    [ -n "$path" ] || continue
    up_of "$path"
    if [ -L "$path" ] || { [ -e "$path" ] && [ ! -f "$path" ]; }; then
        kind=odd
    elif [ -f "$path" ]; then
        kind=file
        set -- "$@" "$path"
        if [ ! -r "$path" ]; then kind=unreadable; elif [ ! -w "$path" ] || [ ! -w "$up" ]; then kind=shut; fi
        # Replaced by a login that cannot give files away, it would be that login's.
        [ "$me" = 0 ] || [ -O "$path" ] || kind=foreign
    else
        kind=none
        while [ ! -e "$up" ]; do up_of "$up"; done
        { [ -d "$up" ] && [ -w "$up" ]; } || kind=shut
    fi
    printf 'kind\t%s\t%s\n' "$kind" "$path"
done <<END
$PATHS
END
[ $# -gt 0 ] || exit 0
stat -c 'stat	%A	%a	%u:%g	%n' -- "$@"
sha256sum -- "$@" 2>/dev/null || :
