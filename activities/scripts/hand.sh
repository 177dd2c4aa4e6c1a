# Each lease has a file in JOBS/.hands: its epoch, then for each job "name epoch order attempt" of its last hand.
take_in_hand() { # $1 JOBS, $2 job, $3 file of the lease ("" of nobody), $4 epoch, order and attempt; refused if late
    [ -n "$3" ] || return 0
    [ -d "$1/.hands" ] || mkdir -p "$1/.hands" && exec 8>>"$1/.hands/$3.lock" || return 73
    flock 8
    [ ! -e "$1/.hands/$3" ] && last=/dev/null || last=$1/.hands/$3
    now=$(awk -v job="$2" -v hand="$4" '
        function later(x, y) { return x[1] != y[1] ? x[1] > y[1] : x[2] != y[2] ? x[2] > y[2] : x[3] > y[3] }
        BEGIN { split(hand, text, " "); for (i in text) own[i] = text[i] + 0 } # numbers are compared, text is written
        NR == 1 && $1 > own[1] { late = "epoch " $1 }
        NR == 1 { newer = $1 < own[1]; next }
        newer { next }
        $1 != job { others = others "\n" $0; next }
        { for (i = 1; i <= 3; i++) had[i] = $(i + 1) + 0 }
        late == "" && later(had, own) { late = "order " $3 ", attempt " $4 }
        END { print late != "" ? "late " late : text[1] others "\n" job " " hand }' "$last")
    [ -n "$now" ] || { echo "Transient: whose hand was the last cannot be read in $1/.hands" >&2; return 75; }
    case $now in late*)
        echo "Stale: a later hand (${now#late }) has had $3 since; nothing was done" >&2
        return 76 ;;
    esac
    printf '%s\n' "$now" >"$1/.hands/$3.new" && mv "$1/.hands/$3.new" "$1/.hands/$3" && return
    rm -f "$1/.hands/$3.new"
    echo "Transient: whose hand it is cannot be written into $1: is the disk full?" >&2
    return 75
}
allowed() { # $1 JOBS; refused while somebody has everything stopped
    [ -e "$1/kill-switch" ] || return 0
    echo "Refused: nothing is changed here while $1/kill-switch stands there: $(head -c 200 "$1/kill-switch" | tr '\n\t' '  ')" >&2
    return 77
}
left_of() { # $1 folder of a job, $2 its name: the pids of what it left running
    grep -lszxF "RECOVERY_JOB=$2" /proc/[0-9]*/environ | cut -d/ -f3
    # What a service's command starts stays, but until that has succeeded its own session may not act on.
    [ "$(cat "$1/rc" 2>/dev/null)" != 0 ] || return 0
    session=$(cat "$1/group" 2>/dev/null)
    for pid in $(grep -lszxF "RECOVERY_COMMAND=$2" /proc/[0-9]*/environ | cut -d/ -f3); do
        [ "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d ' ' -f 4)" != "$session" ] || echo "$pid"
    done
    true
}
