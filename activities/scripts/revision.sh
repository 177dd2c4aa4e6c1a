# Tell with which exit code RUN ended, whether a change was begun and not ended (MARK), and which revision RUN told.
said=$(timeout "$LIMIT" sh -c "$RUN" 2>/dev/null </dev/null)
printf '%s\n' "$?"
if [ -e "$MARK" ]; then echo begun; else echo; fi
printf '%s\n' "$said" | head -c 1000
