# Tell what a store is, whom it replicates and how far, what it holds, and what a restart would make of it.
# ASKED is "role" for that alone, "gate" for when it takes writes, too, and "all" to try whether it does.
. ./store.sh
asked=info
[ "$ASKED" = role ] || asked="$asked${line}echo $mark${line}config get min-replicas-* repl-timeout"
[ "$ASKED" != all ] || asked="$asked${line}echo $mark$line$write"
try <<END # over one connection: clients may be shut out meanwhile
$asked
END
taken "$told"
printf '%s\n' "$info" | sed 's/:/\t/'
rest=$(printf '%s\n' "$told" | sed "1,/^$mark\$/d")
if [ "$ASKED" != role ]; then
    told=${rest%%"$mark"*} first=${rest%%"$line"*}
    case $told in min-* | repl-*) opened ;; *) fail Refused "$at does not let this login in, or not do that (config): $(short)" ;; esac
    printf 'gate\t%s\ntimeout\t%s\n' "$open" "$(printf '%s\n' "$told" | sed -n '/^repl-timeout$/{n;p;}')"
fi
if [ "$ASKED" = all ]; then
    told=${rest#*"$mark$line"} first=${rest#*"$mark$line"}
    tried=$(answered) || exit
    printf 'writes\t%s\n' "$tried"
fi
file=$(field config_file)
if [ -z "$file" ]; then
    printf 'file\tnone\n'
elif [ -r "$file" ]; then # the last word counts; what other files say is not known
    awk -v OFS='\t' '{ gsub(/"/, ""); name = tolower($1) }
        name == "include" { more = 1 }
        name == "replicaof" || name == "slaveof" { of = tolower($2) == "no" ? "" : $2 ":" $3 }
        name == "min-replicas-to-write" || name == "min-slaves-to-write" { least = $2 }
        name == "min-replicas-max-lag" || name == "min-slaves-max-lag" { lag = $2 }
        BEGIN { least = 0; lag = 10 }
        END { print "file", more ? "unknown" : "read"; print "saved_of", of; print "saved_gate", least " " lag }
        ' "$file"
else
    printf 'file\tunknown\n'
fi
