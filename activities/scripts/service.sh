# Run COMMAND, which starts or stops SERVICE. What it starts carries no mark of this job, nor ends with it.
said=$(env -u RECOVERY_JOB sh -c "$COMMAND" 2>&1 </dev/null) || {
    how=$?
    echo "Transient: $SERVICE: its command ended with $how: $(printf '%s' "$said" | tail -n 1 | head -c 300)" >&2
    exit 75
}
