# Run COMMAND, which starts or stops SERVICE. What it starts in a session of its own does not end with this job.
# A command that was cut off may have changed more than its status tells: until it has succeeded the file MARK stands.
if [ -n "${MARK:-}" ] && ! { mkdir -p "${MARK%/*}" && : >"$MARK"; }; then
    echo "Transient: $SERVICE: $MARK cannot be written: is the disk full?" >&2
    exit 75
fi
said=$(env -u RECOVERY_JOB RECOVERY_COMMAND="${RECOVERY_JOB:-}" sh -c "$COMMAND" 2>&1 </dev/null) || {
    how=$?
    echo "Transient: $SERVICE: its command ended with $how: $(printf '%s' "$said" | tail -n 1 | head -c 300)" >&2
    exit 75
}
[ -z "${MARK:-}" ] || rm -f "$MARK"
