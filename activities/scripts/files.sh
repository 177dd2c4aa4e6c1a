# What putting files and taking them back share.
set -u
umask 077
fail() { # kind, what is wrong
    echo "$1: $2" >&2
    exit 65
}
full() { fail Transient "$1 cannot be written: is the disk full? Free some room"; }
cd "$TO" 2>/dev/null || fail Drifted "$TO is no folder that this login can enter any more"
each_of() { # the rows, and what to do with each: SHA-256, mode, owner, path
    printf '%s' "$1" >"${KEEP%/*}/.rows.$$" || full "$KEEP"
    while IFS='	' read -r sum mode owner path; do "$2" "$sum" "$mode" "$owner" "$path"; done <"${KEEP%/*}/.rows.$$"
    rm -f "${KEEP%/*}/.rows.$$"
}
sum_of() { if [ -f "$1" ] && [ ! -L "$1" ]; then sha256sum <"$1" | cut -c1-64; elif [ -e "$1" ] || [ -L "$1" ]; then echo odd; else echo -; fi; }
known() { # the path, its sum now: one that it had before, or is to have
    printf '%s%s' "$BEFORE" "$WANTED" | awk -F'\t' -v sum="$2" -v path="$1" '$4 == path && $1 == sum { found = 1 } END { exit !found }'
}
keep_one() { # sum, mode, owner, path
    [ "$1" != - ] || return 0
    mkdir -p "$(dirname "$KEEP.partial/old/$4")" && cp -p "$4" "$KEEP.partial/old/$4" || full "$KEEP.partial"
    [ "$(sum_of "$KEEP.partial/old/$4")" = "$1" ] || fail Drifted "$TO/$4: somebody else has just changed it; nothing was overwritten"
}
keep_what_is_there() {
    [ ! -d "$KEEP" ] || { : >"$KEEP/pending" || full "$KEEP"; return 0; }
    rm -rf "$KEEP.partial"
    mkdir -p "$KEEP.partial/old" && : >"$KEEP.partial/pending" || full "$KEEP.partial"
    each_of "$BEFORE" keep_one
    sync "$KEEP.partial" && mv -T "$KEEP.partial" "$KEEP" || full "$KEEP"
}
make_folder() { # that of a new file; remembered, so that it goes again
    [ -d "$1" ] || {
        make_folder "$(dirname "$1")"
        printf '%s\n' "$1" >>"$KEEP/folders" && mkdir -m "$(stat -c %a "$(dirname "$1")")" "$1" || full "$1"
        chown "$(stat -c %u:%g "$(dirname "$1")")" "$1" 2>/dev/null || :
    }
}
put() { # sum, mode, owner, path
    now=$(sum_of "$4")
    known "$4" "$now" || fail Drifted "$TO/$4: somebody else has just changed it; nothing was overwritten"
    part=$(dirname "$4")/.$(basename "$4").recovery
    if [ "$1" = - ]; then
        rm -f "$4" "$part" || fail Fatal "$TO/$4 cannot be removed"
        return 0
    fi
    if [ "$now" = "$1" ] && [ "$(stat -c '%a %u:%g' "$4")" = "$2 $3" ]; then
        rm -f "$part"
        return 0
    fi
    make_folder "$(dirname "$4")"
    cp $times "$stage/$4" "$part" && chmod "$2" "$part" || { rm -f "$part"; full "$TO/$4"; }
    [ "$(stat -c %u:%g "$part")" = "$3" ] || chown "$3" "$part" || { rm -f "$part"; fail Fatal "$TO/$4 cannot be given to $3"; }
    [ "$(sum_of "$part")" = "$1" ] || { rm -f "$part"; fail Transient "$TO/$4 did not arrive whole"; }
    sync "$part" && mv -fT "$part" "$4" || { rm -f "$part"; full "$TO/$4"; }
}
remove_new_folders() {
    [ ! -f "$KEEP/folders" ] || sort -r "$KEEP/folders" | while IFS= read -r made; do rmdir "$made" 2>/dev/null; done
}
reloaded() {
    said=$(env -u RECOVERY_JOB RECOVERY_COMMAND="${RECOVERY_JOB:-}" sh -c "$RELOAD" 2>&1 </dev/null) && return
    how=$?
    [ "$TOLERANT" != yes ] || return 0 # it was not well before either
    fail Fatal "what reads the files does not reload (exit code $how): $(printf '%s' "$said" | tail -n 1 | head -c 300)"
}
