# Run a command that fills a folder, at no more than RATE bytes a second if there is one, and tell how far it is.
. ./grown.sh
told() { # "$@": bytes done, in all, and what else is to be known; or "-", bytes in all, and the folder that they grow in
    # A job's text lies in its folder, and job.sh reads this beside it; by hand there is none. A full disk is no failure.
    case $0 in */body) { printf '%s\n' "$*" 1<>"${0%body}progress"; } 2>/dev/null || : ;; esac
}
told_log() { # $1 data directory of a copy, $2 where its replay is, $3 a position that it does not pass
    case $2 in */*) ;; *) return 0 ;; esac
    begins=${begins:-$(sed -n 's/^START WAL LOCATION: \([^ ]*\).*/\1/p' "$1/backup_label.old" 2>/dev/null)}
    begins=${begins:-$2}
    past=$((0x${2%/*} * 4294967296 + 0x${2#*/} - 0x${begins%/*} * 4294967296 - 0x${begins#*/}))
    ahead=$((0x${3%/*} * 4294967296 + 0x${3#*/} - 0x${begins%/*} * 4294967296 - 0x${begins#*/}))
    [ "$ahead" -ge 0 ] || ahead=0
    [ "$past" -lt 0 ] || told "$past" "$ahead" 'of log; its target may come sooner'
}
paced() { # $1 bytes in all, $2 the folder, $3… the command
    if [ -n "${RATE:-}" ]; then
        (throttled "$@")
    else
        told - "$1" "$2"
        shift 2
        "$@"
    fi
}
throttled() { # as paced, in a shell of its own: the command is stopped for a part of each fifth of a second
    set +eu
    total=$1 folder=$2
    shift 2
    limit=$((RATE / 1024)) # kilobytes a second
    grown "$folder"
    had=$kilobytes last=${ended%.*}${ended#*.} spare=0 full='' share=400 # of 100000: its speed is not known yet
    command=''
    trap '[ -z "$command" ] || kill -KILL "-$command" "$command" 2>/dev/null' EXIT # with all that it has started
    trap 'exit 143' TERM
    trap 'exit 130' INT HUP
    # timeout makes it a group of its own in this session: should this shell be killed while it has that stopped, the
    # kernel has the group hang up and go on. Stopped by itself, or in a session of its own, it would stand for ever.
    timeout 0 "$@" &
    command=$!
    until kill -STOP "-$command" 2>/dev/null || ! kill -0 "$command" 2>/dev/null; do :; done
    while kill -0 "$command" 2>/dev/null; do
        cycle "$share"
        read -r now idle </proc/uptime
        now=${now%.*}${now#*.} past=$((now - last))
        [ "$past" -ge "$rest" ] || continue
        grown "$folder"
        told $((kilobytes * 1024)) "$total"
        more=$((kilobytes - had)) had=$kilobytes last=$now
        [ "$more" -ge 0 ] || more=0
        # Next to nothing of what was not used is saved up: neighbours would feel it all at once.
        spare=$((spare + limit * past / 100 - more))
        [ "$spare" -le $((limit / 4)) ] || spare=$((limit / 4))
        if [ "$share" -gt 0 ] && [ "$more" -gt 0 ]; then
            full=$((more * 100 / past * 100000 / share)) # kilobytes a second, were it never stopped
        elif [ "$share" -gt 0 ]; then
            full=$((${full:-$((limit * 250))} / 2)) # it does something else, or not enough to be seen
        fi
        [ "${full:-0}" -gt 0 ] || full=1
        [ "$full" -le 4000000 ] || full=4000000 # what ran on before it could be stopped looks faster than any storage
        [ "$rest" -ge 100 ] && evens=$rest || evens=100 # by when what was too much, or too little, is made up for
        wanted=$((limit + spare * 100 / evens)) # a second
        [ "$wanted" -gt 0 ] || wanted=0
        share=$((wanted * 100000 / full))
        # What it did before it could be stopped may look too fast for any share; what never runs never shows its speed.
        [ "$share" -gt 0 ] || [ "$wanted" = 0 ] || share=1
        [ "$share" -le 100000 ] || share=100000
    done
    wait "$command"
}
cycle() { # $1 for how much of 100000 it runs: for a moment, then it is stopped for less than a second; 0 not at all
    if [ "$1" -ge 97500 ]; then
        kill -CONT "-$command" 2>/dev/null
        sleep 0.2
        return
    fi
    on=$(($1 * 2)) off=$((200 - $1 / 500)) # microseconds, milliseconds
    if [ "$1" -gt 0 ]; then
        if [ "$on" -lt 100 ]; then
            on=100 off=$(((100000 - $1) / ($1 * 10)))
            [ "$off" -le 900 ] || off=900
        fi
        kill -CONT "-$command" 2>/dev/null
        if [ "$on" -lt 8000 ]; then # to start a program may take as long
            while [ "$on" -gt 0 ]; do on=$((on - 1)); done
        else
            on=$((1000000 + on)) && sleep "0.${on#1}"
        fi
        kill -STOP "-$command" 2>/dev/null || return
    fi
    off=$((1000 + off)) && sleep "0.${off#1}"
}
