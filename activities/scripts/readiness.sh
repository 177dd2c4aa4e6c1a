# Tell what the host of a copy offers: room, ports, programs, clock. Changes nothing.
export LC_ALL=C
printf 'now\t%s\n' "$(date +%s.%N)"
printf 'free\t%s\n' "$(df -B1 --output=avail "$COPIES" 2>/dev/null | tail -n 1 | tr -d ' ')"
[ -d "$COPIES" ] && [ -w "$COPIES" ] || printf 'fault\tcopies: %s is no folder that this login may write to\n' "$COPIES"
jobs=$JOBS
[ -e "$jobs" ] || jobs=$(dirname "$jobs")
[ -d "$jobs" ] && [ -w "$jobs" ] || printf 'fault\tjobs: %s cannot be written to\n' "$JOBS"
for program in postgres pg_ctl psql pg_verifybackup pg_amcheck pg_waldump pg_controldata; do
    [ -x "$BIN/$program" ] || printf 'fault\tbin: %s is missing in %s\n' "$program" "$BIN"
done
for program in flock setsid sha256sum join awk; do
    command -v "$program" >/dev/null || printf 'fault\thost: %s is not installed\n' "$program"
done
printf 'version\t%s\n' "$("$BIN/postgres" --version 2>/dev/null | grep -o '[0-9][0-9]*' | head -n 1)"
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { split($2, a, ":"); print "listening\t" a[length(a)] }'
