# Each system has a file in JOBS/.hands: its epoch, then for each job "name epoch order attempt" of its last hand.
take_in_hand() { # $1 JOBS, $2 job, $3 system ("" of nobody), $4 hand: epoch, order and attempt; refused if that is late
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
        { for (i = 1; i <= 3; i++) had[i] = $(i + 1) + 0; if (later(had, own)) late = "order " $3 ", attempt " $4 }
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
