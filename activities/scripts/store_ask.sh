# Ask a store COMMANDS, one a line and over one connection; tell how far it is after that, and what it said.
# UPTO has it first come to so many bytes of its primary's log, for which PATIENCE seconds are waited.
. ./store.sh
[ "$SOME" = 0 ] || renice -n 19 $$ >/dev/null 2>&1 # whatever else the host has to do comes first
look
began=$(date +%s)
while [ "$(offset)" -lt "$UPTO" ] && [ $(($(date +%s) - began)) -le "$PATIENCE" ]; do sleep 0.05; look; done
reached=$(offset)
said=$(printf '%s\n' "$COMMANDS" | awk -v some="$SOME" -v rest="$REST" '
    some && NR % some == 0 { fflush(); system("sleep " rest) } # clients are served meanwhile
    1' | timeout "${LIMIT:-20}" "$CLI" -h "$ADDRESS" -p "$PORT" 2>&1)
[ $? != 124 ] || later "$at does not answer"
case $said in *NOPERM* | *'unknown command'*) fail Refused "$at does not let this login read so: $(printf '%.150s' "$said")" ;; esac
look
printf 'reached\t%s\noffset\t%s\nkeys\t%s\n%s\n' "$reached" "$(offset)" "$(keys)" "$said"
