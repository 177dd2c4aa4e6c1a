# Tell with which exit code RUN ended, and what it said; it has LIMIT seconds.
said=$(timeout "$LIMIT" sh -c "$RUN" 2>&1 </dev/null)
printf '%s\n' "$?"
printf '%s\n' "$said" | head -c 100000
