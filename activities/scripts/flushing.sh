# Write what is laid down to the disk while it is being checked: its server would, before it replays anything.
# The many small files are left to the server: each would be waited for alone, and together they are next to nothing.
flush() { # $1… folders, of which some may not be there
    for folder in "$@"; do
        [ ! -d "$folder" ] || find "$folder" -type f -size +1M -exec sync -d {} + || return
    done
}
flushed() { # $1 the process that does; an error of the disk is told once, so not to the server any more
    wait "$1" || fail Transient "the copy could not be written to the disk; look at that of $(dirname "$copy")"
}
