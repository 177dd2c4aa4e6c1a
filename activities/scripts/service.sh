# Run COMMAND, which starts or stops SERVICE. What it starts in a session of its own does not end with this job.
said=$(env -u RECOVERY_JOB RECOVERY_COMMAND="${RECOVERY_JOB:-}" sh -c "$COMMAND" 2>&1 </dev/null) || {
    how=$?
    echo "Transient: $SERVICE: its command ended with $how: $(printf '%s' "$said" | tail -n 1 | head -c 300)" >&2
    exit 75
}
