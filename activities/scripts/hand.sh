# Each lease has a file in JOBS/.hands: its epoch, then for each job "name epoch order attempt" of its last hand.
# Earlier versions had one for each system, and did not tell catalogs apart. The first hand with a lease closes that for
# good: what workers of theirs have sent, or still send, is refused.
take_in_hand() { # $1 JOBS, $2 job, $3 file of the lease ("" of nobody), $4 earlier file, $5 hand: epoch, order, attempt
    [ -n "$3" ] || return 0
    [ -d "$1/.hands" ] || mkdir -p "$1/.hands" && exec 8>>"$1/.hands/$3.lock" || return 73
    flock 8
    last=$1/.hands/$3 earlier= hint=
    if [ -n "$4" ] && ! closed "$1/.hands/$4"; then
        exec 6>>"$1/.hands/$4.lock" || return 73
        flock 6
        closed "$1/.hands/$4" || earlier=$1/.hands/$4
        [ -e "$last" ] || last=$earlier
    fi
    [ -e "$last" ] || last=/dev/null
    now=$(awk -v job="$2" -v hand="$5" '
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
        [ "$last" != "$earlier" ] || hint=" ($earlier, of an earlier version; remove it if that was another catalog's)"
        echo "Stale: a later hand (${now#late }) has had $3 since$hint; nothing was done" >&2
        return 76 ;;
    esac
    if ! { rewrite "$1/.hands/$3" "$now" && { [ -z "$earlier" ] || rewrite "$earlier" "$CLOSED"; }; }; then
        echo "Transient: whose hand it is cannot be written into $1: is the disk full?" >&2
        return 75
    fi
    exec 6>&-
}
CLOSED="by-lease (each has a file of its own here: SYSTEM@CATALOG)" # no epoch, and later than each of them
closed() { # $1 file of an earlier version
    word=
    [ ! -f "$1" ] || read -r word others <"$1" || :
    [ "$word" = "${CLOSED%% *}" ]
}
rewrite() { # $1 file, $2 its text: the whole of it, or it stays as it was
    printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1" && return
    rm -f "$1.new"
    return 1
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
