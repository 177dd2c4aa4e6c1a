# What the scripts about a store share: how it is asked, what its answers mean, and how its settings outlive a restart.
export LC_ALL=C
fail() { echo "$1: $2" >&2; exit 3; }
later() { echo "Transient: $1" >&2; exit 75; }
mark=recovery.mark.$$ at="the store at $ADDRESS:$PORT" return=$(printf '\r') line='
'
if [ -n "$SECRET" ]; then # in the environment of its program alone: a command line is read by everybody
    REDISCLI_AUTH=$(cat "$SECRET" 2>/dev/null) && [ -n "$REDISCLI_AUTH" ] ||
        fail Fatal "the password in $SECRET cannot be read"
    export REDISCLI_AUTH
fi
try() { # "$@" a command: "told" is what the store answers, a refusal too; what it cannot answer ends the script
    told=$(timeout "${LIMIT:-20}" "$CLI" -h "$ADDRESS" -p "$PORT" "$@" 2>&1)
    how=$?
    case $told in *"$return"*) told=$(printf '%s\n' "$told" | tr -d '\r') ;; esac
    heard "${1:-info}"
}
heard() { # $1 what was asked; what "told" is, by its first line
    IFS= read -r first <<END || : # not %%: a shell takes its time over long values
$told
END
    case $how:$first in # the first line alone: INFO counts refusals by these very words
        124:*) later "$at does not answer" ;;
        126:* | 127:*) fail Fatal "$CLI cannot be run" ;;
        *WRONGPASS* | *NOAUTH* | *NOPERM*) fail Refused "$at does not let this login in, or not do that ($1)" ;;
        *'Protocol error'* | *'Connection reset'* | *'closed the connection'* | *'I/O error'*)
            later "$at closes the connection; does it run, does it expect TLS (which is not spoken here)?" ;;
        *'Could not connect'* | *'Connection re'* | [1-9]*:) later "$at cannot be reached; does it run?" ;;
        *:LOADING* | *:BUSY*) later "$at is busy (${told%% *})" ;;
    esac
}
ask() { # "$@" a command that the store has to carry out
    try "$@"
    case $first in ERR* | -* | [A-Z][A-Z][A-Z][A-Z]*\ *) fail Refused "$at does not take $1: $(short)" ;; esac
}
short() { printf '%.150s' "$first"; }
names='role|config_file|loading|db[0-9]+|slave[0-9]+|(valkey|redis)_version|used_memory|maxmemory(_policy)?'
names="$names|master_(host|port|link_status|last_io_seconds_ago|link_down_since_seconds|sync_in_progress|replid2?)"
names="$names|(master|slave|second)_repl_offset|cluster_enabled|connected_clients|maxclients"
field() { # $1 name, of what INFO told; without another program, for it is asked often while clients are shut out
    case $line$info in *"$line$1:"*) ;; *) return ;; esac
    found=$line$info
    found=${found#*"$line$1:"}
    printf '%s\n' "${found%%"$line"*}"
}
look() { # what the store is: "of" is whom it replicates, nobody as a primary
    ask info
    taken "$told"
}
taken() { # $1 what INFO told
    of= info=$(printf '%s\n' "$1" | grep -E "^($names):")
    [ -n "$(field role)" ] || fail Refused "$at does not tell of itself: $(short)"
    [ "$(field cluster_enabled)" != 1 ] || fail Refused "$at is part of a cluster; a primary and its replicas are known here"
    [ "$(field role)" != slave ] || of=$(field master_host):$(field master_port)
}
offset() { # how far it is: in its primary's log as a replica, in its own as a primary
    [ -z "$of" ] && field master_repl_offset || field slave_repl_offset
}
keys() { # how many there are, in all its databases
    printf '%s\n' "$info" | sed -n 's/^db[0-9]*:keys=\([0-9]*\).*/\1/p' | awk '{ all += $1 } END { print all + 0 }'
}
gate() { # "least lag": how many replicas, at most that far behind, there must be for a write to be taken
    ask config get 'min-replicas-*'
    opened
}
opened() { # from what it told of that
    open=$(printf '%s\n' "$told" | awk '{ if (name ~ /to-write/) least = $1; if (name ~ /max-lag/) lag = $1; name = $1 }
        END { print least " " lag }')
}
write="del recovery:nothing:$$" # of a key that is not there: a write that changes nothing
answered() { # what it told to that: "refused", or "taken"
    case $told in
        [0-9]*) echo taken ;;
        NOREPLICAS* | READONLY* | MISCONF*) echo refused ;;
        *) fail Refused "$at does not tell whether it takes writes: $(short)" ;;
    esac
}
keep() { # let a restart find the settings as they are; a store without a file, or one that it may not write, forgets
    file=$(field config_file)
    mode=$(stat -c %a "$file" 2>/dev/null)
    try "$@"
    [ -z "$mode" ] || chmod "$mode" "$file" 2>/dev/null # it writes a new one, for all to read, with its passwords
}
kept() { # keep them
    keep config rewrite
}
kept_tried() { # keep them, and try to write: "tried" is what came of that. One connection: clients may be shut out
    keep <<END
config rewrite
echo $mark
$write
END
    told=${told#*"$mark$line"}
    heard del
    tried=$(answered) || exit
}
