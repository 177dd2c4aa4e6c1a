# What putting files and taking them back share.
set -u
umask 077
fail() { # kind, what is wrong
    echo "$1: $2" >&2
    exit 65
}
full() { fail Transient "$1 cannot be written: is the disk full? Free some room"; }
cd "$TO" 2>/dev/null || fail Drifted "$TO is no folder that this login can enter any more"
each_of() { # rows of three fields or four, each of them a word, and a path: what to do with each
    printf '%s' "$1" | while IFS='	' read -r sum mode owner rest; do "$2" "$sum" "$mode" "$owner" "$rest"; done || exit
}
sum_of() { # sets "sum": the SHA-256 of a file, "-" for none, "odd" for what is no file
    if [ -f "$1" ] && [ ! -L "$1" ]; then
        sum=$(sha256sum <"$1") && sum=${sum%% *} || sum=unreadable
    elif [ -e "$1" ] || [ -L "$1" ]; then sum=odd; else sum=-; fi
}
up_of() { case $1 in */*) up=${1%/*} ;; *) up=. ;; esac; }
keep_one() { # sum, mode, owner, path
    [ "$1" != - ] || return 0
    up_of "$KEEP.partial/old/$4"
    { [ -d "$up" ] || mkdir -p "$up"; } && cp -p "$4" "$KEEP.partial/old/$4" || full "$KEEP.partial"
    sum_of "$KEEP.partial/old/$4"
    [ "$sum" = "$1" ] || fail Drifted "$TO/$4: somebody else has just changed it; nothing was overwritten"
}
keep_what_is_there() {
    [ ! -d "$KEEP" ] || { : >"$KEEP/pending" || full "$KEEP"; return 0; }
    [ ! -e "$KEEP.partial" ] || rm -rf "$KEEP.partial"
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
put() { # sum, mode, owner; then the sum that was there, a tab, and the path
    old=${4%%	*}
    set -- "$1" "$2" "$3" "${4#*	}"
    sum_of "$4"
    [ "$sum" = "$1" ] || [ "$sum" = "$old" ] || fail Drifted "$TO/$4: somebody else has just changed it; nothing was overwritten"
    up_of "$4"
    part=$up/.${4##*/}.recovery
    if [ "$1" = - ]; then
        rm -f "$4" "$part" || fail Fatal "$TO/$4 cannot be removed"
        return 0
    fi
    if [ "$sum" = "$1" ] && [ "$(stat -c '%a %u:%g' "$4")" = "$2 $3" ]; then
        rm -f "$part"
        return 0
    fi
    [ -d "$up" ] || make_folder "$up"
    case $BACK in # what was there comes back with its times, and all else that a copy keeps
        yes) cp -p "$stage/$4" "$part" && chmod "$2" "$part" ;;
        *) install -m "$2" -T "$stage/$4" "$part" ;;
    esac || { rm -f "$part"; full "$TO/$4"; }
    [ "$(stat -c %u:%g "$part")" = "$3" ] || chown "$3" "$part" || { rm -f "$part"; fail Fatal "$TO/$4 cannot be given to $3"; }
    sum_of "$part"
    [ "$sum" = "$1" ] || { rm -f "$part"; fail Transient "$TO/$4 did not arrive whole"; }
    sync "$part" && mv -fT "$part" "$4" || { rm -f "$part"; full "$TO/$4"; }
}
remove_new_folders() {
    [ ! -f "$KEEP/folders" ] || sort -r "$KEEP/folders" | while IFS= read -r made; do rmdir "$made" 2>/dev/null; done
}
reloaded() {
    said=$(
        RECOVERY_COMMAND=${RECOVERY_JOB:-}
        unset RECOVERY_JOB
        export RECOVERY_COMMAND
        exec sh -c "$RELOAD" 2>&1 </dev/null
    ) && return
    how=$?
    [ "$TOLERANT" != yes ] || return 0 # it was not well before either
    fail Fatal "what reads the files does not reload (exit code $how): $(printf '%s' "$said" | tail -n 1 | head -c 300)"
}
