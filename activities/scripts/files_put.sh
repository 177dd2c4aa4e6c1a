# Put files under TO, each whole or not at all, with the rights of the one that was there; then run RELOAD.
# WANTED and BEFORE name them, one a line: SHA-256 ("-" for none), mode, owner, path. ARCHIVE has the contents (tar, base64);
# what was there is kept in KEEP, which tells "pending" until RELOAD has succeeded. BACK restores from that instead.
. ./files.sh
if [ "$BACK" != yes ]; then
    keep_what_is_there
    stage=$KEEP/stage
    [ ! -e "$stage" ] || rm -rf "$stage"
    mkdir -p "$stage" && printf '%s' "$ARCHIVE" | base64 -d | tar -xf - -C "$stage" || full "$KEEP"
else
    stage=$KEEP/old
    if [ ! -d "$KEEP" ]; then
        rm -rf "$KEEP.partial" # nothing was changed before that was whole
        exit 0
    fi
    : >"$KEEP/pending" || full "$KEEP"
fi
each_of "$WANTED" put
[ "$BACK" != yes ] || remove_new_folders
sync .
[ -z "$RELOAD" ] || reloaded
rm -rf "$KEEP/stage" "$KEEP/pending"
[ "$BACK" != yes ] || rm -rf "$KEEP"
