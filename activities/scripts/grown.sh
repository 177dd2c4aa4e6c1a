# See how large a folder has grown, whatever it is that fills it, and rest so that this costs a tenth of the time at most.
grown() { # $1 folder; sets "kilobytes", and "rest": for how many hundredths of a second not to look again
    read -r began idle </proc/uptime
    seen=$(du -sk "$1" 2>/dev/null)
    seen=${seen%%[!0-9]*}
    kilobytes=${seen:-${kilobytes:-0}} # a look that was killed tells nothing
    read -r ended idle </proc/uptime
    rest=$(((${ended%.*}${ended#*.} - ${began%.*}${began#*.}) * 10))
    [ "$rest" -ge 20 ] || rest=20
}
