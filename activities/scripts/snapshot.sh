# What the scripts that read a snapshot of sessions share: the server that holds it, and how it and the store are asked.
. ./store.sh
sum() { sha256sum <"$1" | cut -c1-64; }
serve() { # hold what sessions.rdb in this folder does; nobody else reaches that, and it ends with this script
    held=$(pwd)
    trap leave EXIT
    trap 'exit 143' HUP INT TERM
    rm -f socket
    "$SERVER" - >log 2>&1 <<END &
port 0
unixsocket socket
unixsocketperm 700
dbfilename sessions.rdb
databases 1024
save ""
appendonly no
maxmemory 0
slowlog-log-slower-than -1
set-proc-title no
END
    served=$!
    until [ "$(inside ping 2>/dev/null)" = PONG ]; do
        kill -0 "$served" 2>/dev/null ||
            fail Fatal "$SERVER does not hold the snapshot: $(grep ' # ' log | tail -n 1 | cut -c1-200)"
        sleep 0.05
    done
}
leave() {
    kill "$served" 2>/dev/null && wait "$served" 2>/dev/null
    rm -f "$held/socket" "$held/log"
}
inside() { ( # "$@" a command, or without one each line of standard input, for that server; it has no password
    unset REDISCLI_AUTH VALKEYCLI_AUTH
    exec timeout 600 "$CLI" -s socket "$@"
); }
outside() { # $1 a file of commands, one a line, for the store
    timeout 600 "$CLI" -h "$ADDRESS" -p "$PORT" <"$1" 2>&1
}
calls() { # $1 EVAL or EVAL_RO, $2 words after the text TEXT, $3 how many at once; standard input: what, one a line
    FULL="$1 \"$TEXT\"" SHORT="EVALSHA${1#EVAL} $(printf '%s' "$TEXT" | sha1sum | cut -c1-40)" WORDS=$2 awk -v many="$3" '
        function call() { # the store knows the text once it has read it
            print (called++ ? ENVIRON["SHORT"] : ENVIRON["FULL"]) " 0 " ENVIRON["WORDS"] line
            line = ""
        }
        { line = line " " $0; if (NR % many == 0) call() }
        END { if (line != "") call() }'
}
refused() { # standard input: what was said, and nothing of what is expected; ends the script if that is anything
    said=$(tr -d '\r' | grep -m 1 .) || return 0
    case $said in
        *'version or checksum'* | *'Bad data format'*)
            fail Fatal "$at does not read what $SERVER writes: name a server of its own version, or of an older one (server)"
            ;;
        *OOM*) fail Refused "$at has no room for more sessions: raise its maxmemory" ;;
        *NOREPLICAS* | *READONLY* | *MISCONF*) fail Refused "$at takes no write: $(printf '%.150s' "$said")" ;;
        *WRONGPASS* | *NOAUTH* | *NOPERM* | *'ACL failure'*) fail Refused "$at does not let this login do that: $(printf '%.150s' "$said")" ;;
        other\ *) fail Fatal "the snapshot does not hold what it did when it was read" ;;
        *) later "$at does not answer as expected: $(printf '%.150s' "$said")" ;;
    esac
}
