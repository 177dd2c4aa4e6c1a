# Ask a store COMMANDS, one a line and over one connection; tell how far it is after that, and what it said.
# UPTO has it first come to so many bytes of its primary's log, for which PATIENCE seconds are waited.
. ./store.sh
if [ "$SOME" != 0 ]; then # whatever else the host has to do comes first, also where its kernel shares by sessions
    renice -n 19 $$ >/dev/null 2>&1
    { echo 19 >/proc/self/autogroup; } 2>/dev/null
fi
if [ "$SOME" = 0 ] || [ "$UPTO" != 0 ]; then # what may be a write is sent to what is known to be a store of ours
    look
    began=$(date +%s)
    while [ "$(offset)" -lt "$UPTO" ] && [ $(($(date +%s) - began)) -le "$PATIENCE" ]; do sleep 0.05; look; done
fi
told=$(printf '%s\n' info "echo $mark" "$COMMANDS" "echo $mark" info | awk -v mark="echo $mark" -v some="$SOME" -v rest="$REST" '
    $0 == mark { met++ }
    some && met == 1 && $0 != mark && asked++ % some == 0 { fflush(); system("sleep " rest) } # clients are served meanwhile
    1' | timeout "${LIMIT:-20}" "$CLI" -h "$ADDRESS" -p "$PORT" 2>&1)
how=$?
heard info
part() { # $1 what it told after so many marks
    printf '%s\n' "$told" | awk -v mark="$mark" -v part="$1" '{ sub(/\r$/, "") } $0 == mark { met++; next } met == part'
}
taken "$(part 0)"
reached=$(offset) said=$(part 1) last=$(part 2)
case $told in *NOPERM*"'echo'"*) fail Refused "$at does not let this login in, or not do that (echo)" ;; esac
case $said in *NOPERM* | *'unknown command'*) fail Refused "$at does not let this login read so: $(printf '%.150s' "$said")" ;; esac
case $line$last in
    *"${line}role:"*) ;;
    *) later "$at broke off: $(printf '%s\n' "$told" | tail -n 1 | cut -c1-150)" ;;
esac
taken "$last"
printf 'reached\t%s\noffset\t%s\nkeys\t%s\n%s\n' "$reached" "$(offset)" "$(keys)" "$said"
