# Set the servers of a backend to WANTED ("name=state ..."), and keep that in the state file for the next start.
# Each has to be in one of the states in KNOWN, else somebody else has changed it. KEPT "no": the file had none of them.
. ./haproxy.sh
ask "show servers state $BACKEND"
change='' # those that go first: never two sites at a time
for pair in $(printf '%s\n' $WANTED | grep -v '=ready$') $(printf '%s\n' $WANTED | grep '=ready$'); do
    name=${pair%=*} now=
    admin=$(printf '%s\n' "$told" | servers server | awk -v name="$name" '$2 == name { print $3 }')
    [ -n "$admin" ] || fail Drifted "$BACKEND has no server $name any more; nothing was changed"
    if [ $((admin & 0x63)) -ne 0 ]; then now=maint; elif [ $((admin & 0x18)) -ne 0 ]; then now=drain; else now=ready; fi
    case " $KNOWN " in
        *" $name=$now "*) ;;
        *) fail Drifted "somebody else has just set $BACKEND/$name to $now; nothing was overwritten" ;;
    esac
    [ "$pair" = "$name=$now" ] || change="$change${change:+; }set server $BACKEND/$name state ${pair##*=}"
done
if [ -n "$change" ]; then
    ask "$change"
    [ -z "$(printf '%s' "$told" | tr -d ' \n')" ] ||
        fail Refused "HAProxy did not take it: $(printf '%s' "$told" | tr '\n' ' ' | head -c 200)"
fi
ask "show servers state $BACKEND"
head=$(printf '%s\n' "$told" | sed '/^$/d' | head -n 2) rows=''
[ "$KEPT" = no ] || rows=$(printf '%s\n' "$told" | awk '$1 ~ /^[0-9]+$/ && NF > 2')
# What the file has of other backends is none of ours: it stays as it is.
[ ! -e "$STATE" ] || others=$(awk -v backend="$BACKEND" '$1 ~ /^[0-9]+$/ && NF > 2 && $2 != backend' "$STATE") ||
    fail Refused "the state file $STATE cannot be read by this user"
rows=$(printf '%s\n' "${others:-}" "$rows" | sed '/^$/d')
if [ -z "$rows" ]; then
    rm -f "$STATE"
else
    printf '%s\n' "$head" "$rows" >"$STATE.new" && chmod 644 "$STATE.new" && mv "$STATE.new" "$STATE"
fi || { rm -f "$STATE.new"; fail Transient "the state file $STATE cannot be written: is the disk full, may this user?"; }
