# Tell whether a service runs, as its own COMMAND says, and by the file MARK whether a command was cut off. Changes nothing.
if sh -c "$COMMAND" >/dev/null 2>&1 </dev/null; then echo runs; else echo stopped; fi
[ -z "${MARK:-}" ] || [ ! -e "$MARK" ] || echo begun
