# Wait until COMMAND says that SERVICE is ready, for SECONDS at most. Changes nothing.
deadline=$(($(date +%s) + SECONDS_LEFT))
while :; do
    said=$(sh -c "$COMMAND" 2>&1 </dev/null) && exit 0
    [ "$(date +%s)" -lt "$deadline" ] || break
    sleep 0.2
done
echo "Fatal: $SERVICE is not ready after $SECONDS_LEFT s: $(printf '%s' "${said:-no word of why}" | tail -n 1 | head -c 300)" >&2
exit 3
