# What the scripts of a cut-over share: who works in a data directory, how it is asked, shut, started and stopped.
export LC_ALL=C PGCONNECT_TIMEOUT=5 PGTZ=UTC PGAPPNAME="recovery $(printf '%s' "${COPY##*/}" | tail -c 50)"
fail() { echo "$1: $2" >&2; exit 3; }
later() { echo "Transient: $1" >&2; exit 75; }
identity() { stat -c %d:%i "$1" 2>/dev/null; }
digest() { sha256sum <"$1" 2>/dev/null | cut -c1-64; }
# A server is known by the folder that it works in, wherever that was moved to and whatever a pid file says.
servers() { # $1 identity of a data directory: the pids of everything of PostgreSQL that works in it
    found=$(stat -L -c '%d:%i %n' /proc/[0-9]*/cwd 2>/dev/null | sed -n "s|^$1 \(.*\)cwd$|\1exe|p")
    [ -z "$found" ] || QUOTING_STYLE=shell-always stat -c %N $found 2>/dev/null | # one call for all: there are many
        sed -n "s|^'/proc/\([0-9]*\)/exe' -> '.*/postgres\( .*\)\{0,1\}'\$|\1|p"
}
parent() { sed -n 's/^PPid:[^0-9]*//p' "/proc/$1/status" 2>/dev/null; } # $1 pid; nothing once it has ended
postmaster() { # $1 identity: the pid of the one that started the others
    all=" $(servers "$1" | tr '\n' ' ')"
    for pid in $all; do
        by=$(parent "$pid")
        case $by in '') continue ;; esac
        case $all in *" $by "*) ;; *) echo "$pid" && return ;; esac
    done
}
canary=recovery_$(printf '%s' "${COPY##*-}" | tr -c a-z0-9 _) # a schema of the engine's own
unborn() { # $1 identity: the pids of servers that "launch" has begun to start there, and that do not work there yet
    begun=$(grep -lszxF "RECOVERY_SERVER=$COPY $1" /proc/[0-9]*/environ | cut -d/ -f3)
    born=" $(servers "$1" | tr '\n' ' ')"
    for pid in $begun; do case $born in *" $pid "*) ;; *) echo "$pid" ;; esac done
}
ask() { # "$@" SQL, for the server of DATA: each by itself, over one connection
    for sql; do shift && set -- "$@" -c "$sql"; done
    timeout 30 "$BIN/psql" -wXAtq -h "$SOCKETS" -p "$PORT" -U "$DBUSER" -d "$DBNAME" -v ON_ERROR_STOP=1 "$@"
}
try() { # write a row of the engine's own, read it, and take it away; $1 is what the database is, in words
    why() { grep -E -m 1 'ERROR|FATAL' "$COPY/kept/asked" || tail -n 1 "$COPY/kept/asked"; }
    said=$(ask "set client_min_messages = error; drop schema if exists $canary cascade" \
        "create schema $canary; create table $canary.canary as select '$canary'::text as said" \
        "select said from $canary.canary" "drop schema $canary cascade" 2>"$COPY/kept/asked") && how=0 || how=$?
    [ -n "$said" ] || fail Fatal "$1 takes no write: $(why)"
    [ "$said" = "$canary" ] || fail Fatal "$1 does not give back what was written: $said $(why)"
    [ "$how" = 0 ] || later "the engine's own table $canary.canary cannot be dropped"
}
refusal() { # why the last question was not answered, if that was a login that is not let in
    grep FATAL "$1" | grep -v -E 'starting up|accepting connections|shutting down|recovery mode|too many|administrator'
}
others="pid <> pg_backend_pid() and application_name <> '$PGAPPNAME' and backend_type not in ('archiver',
    'autovacuum launcher', 'background writer', 'checkpointer', 'io worker', 'logger', 'logical replication launcher',
    'slotsync worker', 'startup', 'walreceiver', 'walsummarizer', 'walwriter')"
# A login is judged by the rules as they lie there once the server has read its settings after they were put there.
# Whoever began to log in after that is judged by them, and is nobody who is in: clients knock at shut doors all the time.
doors="select coalesce(extract(epoch from pg_conf_load_time()), 0) || ' ' || (select count(*) from pg_stat_activity
    where $others and backend_type in ('client backend', 'walsender')
    and not (coalesce(state, '') = 'starting' and backend_start > pg_conf_load_time()))"
loaded() { # $1 what "doors" told
    awk -v read="${1% *}" -v put="$(stat -c %.9Z "$DATA/pg_hba.conf")" 'BEGIN { exit !(read > put + 0.01) }'
}
full() { later "nothing can be written into $COPY: is the disk full?"; }
keep() { # $1 file: takes the place of $2 at once, or not at all; one that is half there lies beneath COPY
    mkdir -p "$COPY/kept" && cp -a "$1" "$COPY/kept/new" && sync "$COPY/kept/new" && mv -T "$COPY/kept/new" "$2" || full
}
remember() { # $1 name, $2 text
    mkdir -p "$COPY/kept" && printf '%s\n' "$2" >"$COPY/kept/$1.new" && mv -T "$COPY/kept/$1.new" "$COPY/kept/$1" || full
}
reread() { # let the server of DATA read its settings, and wait until it has; nothing to do where none runs
    since=$(date +%s)
    while server=$(postmaster "$(identity "$DATA")") && [ -n "$server" ]; do
        kill -HUP "$server" 2>/dev/null
        sleep 0.02
        told=$(ask "$doors" 2>"$COPY/kept/asked") && loaded "$told" && return
        ! said=$(refusal "$COPY/kept/asked") || fail Refused "$DBUSER is not let into $DBNAME: $(echo "$said" | tail -n 1)"
        [ $(($(date +%s) - since)) -lt 60 ] || later "the server of $DATA does not answer: $(tail -n 1 "$COPY/kept/asked")"
    done
}
older() { # $1 pid, $2 seconds: whether it has run for that long, or nearly; times are told in hundredths
    awk -v long="$2" '{ sub(/.*[)] /, "") } NR == 1 { now = $20; next } { found = (now - $20) / 100 + 0.03 >= long }
        END { exit !found }' /proc/self/stat "/proc/$1/stat" 2>/dev/null
}
knocking() { # $1 identity: the pids of logins on their way, which the rules before may still let in
    first=$(postmaster "$1")
    known=$(ask "select extract(epoch from clock_timestamp() - pg_conf_load_time()) || ' ' || string_agg(pid::text, ' ')
        from pg_stat_activity" 2>/dev/null) && [ -n "$first" ] || return
    for pid in $(servers "$1"); do
        case " ${known#* } " in *" $pid "*) continue ;; esac
        [ "$(parent "$pid")" = "$first" ] || continue # one that has ended, or the first itself
        grep -qs 'postgres: .*logger' "/proc/$pid/cmdline" || ! older "$pid" "${known%% *}" || echo "$pid"
    done
}
guard() { # shut the doors of DATA: nobody comes in but DBUSER over the socket, and nobody stays
    mkdir -p "$COPY/kept" && printf '%s' "$GUARD" >"$COPY/kept/guard.new" && mv "$COPY/kept/guard.new" "$COPY/kept/guard" || full
    chmod --reference="$DATA/pg_hba.conf" "$COPY/kept/guard"
    cmp -s "$COPY/kept/guard" "$DATA/pg_hba.conf" || keep "$COPY/kept/guard" "$DATA/pg_hba.conf"
    reread
    since=$(date +%s)
    while [ -n "$(postmaster "$(identity "$DATA")")" ]; do
        left=$(ask "with ended as materialized (select backend_type, pg_terminate_backend(pid) as done
            from pg_stat_activity where $others) select count(*) from ended
            where backend_type in ('client backend', 'walsender') and done is not null" 2>"$COPY/kept/asked")
        if [ "$left" = 0 ]; then
            coming=$(knocking "$(identity "$DATA")")
            [ -n "$coming" ] || return 0
            kill -TERM $coming 2>/dev/null
        fi
        [ $(($(date +%s) - since)) -lt 60 ] || later "clients of $DBNAME do not end: ${left:-$(tail -n 1 "$COPY/kept/asked")}"
        sleep 0.02
    done
}
muted() { # the settings of the running database, but that nothing is archived
    cat "$FENCED/postgresql.auto.conf" && printf "\narchive_command = ''\n"
}
gone() { # $1 identity, $2 seconds: wait until nothing works there; 1 if something still does, or will not hear
    tries=$(($2 * 50))
    while [ -n "$(servers "$1")" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] && ! frozen "$1" || return 1
        sleep 0.02
    done
}
frozen() { # $1 identity: whether its first process was stopped in its tracks
    grep -qs '^State:.[Tt]' "/proc/$(postmaster "$1")/status"
}
halt() { # $1 identity: stop what works there, fast, then at once, then by force
    while left=$(unborn "$1") && [ -n "$left" ]; do
        kill -KILL $left 2>/dev/null
        sleep 0.02
    done
    for how in INT:60 QUIT:10 KILL:10; do
        server=$(postmaster "$1")
        [ -n "$server" ] || return 0
        [ "${how%:*}" != KILL ] || server=$(servers "$1")
        [ "${how%:*}" = KILL ] || ! frozen "$1" || continue
        kill "-${how%:*}" $server 2>/dev/null
        ! gone "$1" "${how#*:}" || return 0
    done
    later "the server in $1 cannot be stopped: $(servers "$1" | tr '\n' ' ')"
}
options() { # $1 postmaster.opts: but for the folder, which is another one for who has started it by hand elsewhere
    sed 's/^[^"]*//; s/"-D" "[^"]*"//g; s/"-D[^"]*"//g' "$1"
}
options_back() { # what DATA was started with, before it was started to be read; empty: nothing was written down
    before=$DATA/postmaster.opts.before
    [ ! -e "$before" ] || { [ -s "$before" ] && mv -f "$before" "$DATA/postmaster.opts"; } ||
        rm -f "$DATA/postmaster.opts" "$before"
}
unlock() { # remove what a server of DATA left that died: a zombie, or a stranger that got its pid, would pass for it
    rm -f "$DATA/postmaster.pid"
    lock=$SOCKETS/.s.PGSQL.$PORT.lock
    case $(readlink "/proc/$(head -n 1 "$lock" 2>/dev/null)/exe") in */postgres*) ;; *) rm -f "$lock" ;; esac
}
launch() { # $1 postmaster.opts: start the server of DATA with these options, where it logged before; wait for it
    at=$(identity "$DATA") tries=0 began=$(date +%s) # for no longer than "patience" seconds, if that is set: 1 then
    if [ -z "$(unborn "$at")" ] && [ -z "$(servers "$at")" ]; then
        unlock
        log=$(cat "$COPY/kept/log" 2>/dev/null)
        case $log in /*' (deleted)' | [!/]* | '') log=$DATA.log ;; esac
        # It must not carry this job's mark, nor end with it; its own one shows it before it works in DATA.
        env -u RECOVERY_JOB -u LC_ALL -u PGCONNECT_TIMEOUT -u PGTZ -u PGAPPNAME RECOVERY_SERVER="$COPY $at" \
            "$BIN/pg_ctl" -D "$DATA" -l "$log" -W -o "$(options "$1")" start >/dev/null 2>&1 </dev/null
    fi
    until [ "$(ask 'select 1' 2>"$COPY/kept/asked")" = 1 ]; do
        ! said=$(refusal "$COPY/kept/asked") || fail Refused "$DBUSER is not let into $DBNAME: $(echo "$said" | tail -n 1)"
        if [ -z "$(unborn "$at")" ] && [ -z "$(servers "$at")" ]; then
            tries=$((tries + 1))
            [ "$tries" -lt 10 ] || fail Fatal "the server of $DATA does not start: $(tail -n 1 "${log:-$COPY/kept/asked}")"
        fi
        [ -z "${patience:-}" ] || [ $(($(date +%s) - began)) -lt "$patience" ] || return 1
        sleep 0.05
    done
}
