# Tell who stands at DATA, who serves, and who is let in: what every step of a cut-over looks at. Changes nothing.
# What is in the archive it tells if that is ASKED for: a tool takes its time to say it.
. ./running.sh
. ./backups.sh
alone() { # $1 what "doors" told: whether nobody is in, nor on the way in by the rules before
    [ "${1#* }" = 0 ] && [ -z "$(knocking "$(identity "$DATA")")" ]
}
say() { printf '%s\t%s\n' "$1" "$2"; }
kept=$COPY/kept
moved=$(cat "$kept/copy" 2>/dev/null) # which folder it is that was put in its place, or is about to be
copy=$(identity "$COPY/data") || copy=$moved
case $(identity "$DATA") in
    '') home=nothing ;;
    "$IDENTITY") home=running ;;
    "$copy") home=copy ;;
    *) home=another ;;
esac
say home "$home"
[ -z "$IDENTITY" ] || [ "$(identity "$FENCED")" != "$IDENTITY" ] || say aside yes
[ ! -e "$kept/fencing" ] || say running leaves
[ ! -d "$COPY/data" ] || [ "$copy" != "${moved:-$copy}" ] || say copy there
[ ! -e "$kept/installing" ] || say copy moves
[ -z "$IDENTITY" ] || [ -z "$(servers "$IDENTITY")" ] || say running serves
[ -z "$copy" ] || [ -z "$(servers "$copy")" ] || serves=yes
[ -z "$serves" ] || say copy serves
port=$(printf ':%04X' "$PORT")
if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v p="$port" '
        $4 == "0A" && substr($2, length($2) - 4) == p { found = 1 } END { exit !found }' ||
    awk -v s="$SOCKETS/.s.PGSQL.$PORT" 'substr($0, length($0) - length(s) + 1) == s { found = 1 } END { exit !found }' \
        /proc/net/unix; then
    say listening yes
fi
if [ -f "$DATA/pg_hba.conf" ]; then
    rules=$(digest "$DATA/pg_hba.conf") clients=admitted
    say rules "$rules"
    [ "$rules" != "$SHUT" ] || clients=refused
    # Rules that lie there count once the server has read them, a guard once the last client has gone.
    if [ -n "$(servers "$(identity "$DATA")")" ] && { [ "$clients" = refused ] || [ -e "$kept/pg_hba.conf" ]; }; then
        told=$(ask "$doors" 2>/dev/null) && loaded "$told" || clients=closing
        [ "$clients" != refused ] || alone "$told" || clients=closing
    fi
    say clients "$clients"
fi
if [ -n "$serves" ] && [ "$home" != copy ]; then
    # In the copy, too, the guard counts.
    DATA=$COPY/data SOCKETS=$COPY/run PORT=$COPYPORT
    role=$(ask "select case when pg_is_in_recovery() then 'standby' else
        'primary ' || ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end" 2>/dev/null)
    # Its timeline is noted last; without it nobody knows which of its log is its own.
    case $role in primary*) [ -s "$kept/timeline" ] || role="promoting ${role#* }" ;; esac
    say role "$role"
    [ "$(digest "$DATA/pg_hba.conf")" != "$SHUT" ] || ! told=$(ask "$doors" 2>/dev/null) || ! loaded "$told" ||
        ! alone "$told" || say copy shut
elif [ "$home" = copy ] && [ -n "$serves" ]; then
    command=$(ask 'show archive_command' 2>/dev/null) && [ -n "$command" ] && say archiving yes
fi
if [ "$home" = copy ]; then
    if cmp -s "$FENCED/postgresql.auto.conf" "$DATA/postgresql.auto.conf"; then say settings whole
    elif muted | cmp -s - "$DATA/postgresql.auto.conf"; then say settings muted
    else say settings "another's"; fi
fi
timeline=$(cat "$kept/timeline" 2>/dev/null)
if [ -n "$timeline" ] && [ -n "${ASKED:-}" ]; then
    [ ! -e "$kept/archiving" ] || say archive begun
    found=$(in_archive "$timeline") || exit
    ! printf '%s\n' "$found" | grep -qxF "$timeline.history" || say archive history
    ! printf '%s\n' "$found" | grep -qxE "$timeline.{16}" || say archive log
fi
exit 0
