# Tell with which exit code RUN ended, and what it said; it has LIMIT seconds.
said=$(timeout "$LIMIT" sh -c "$RUN" 2>&1 </dev/null)
printf '%s\n' "$?"
printf '%.100000s\n' "$said"
