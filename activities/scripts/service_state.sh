# Tell whether a service runs, as its own COMMAND says, and whether a command that began has not come to its end, by the
# file MARK. Changes nothing.
if sh -c "$COMMAND" >/dev/null 2>&1 </dev/null; then echo runs; else echo stopped; fi
[ -z "${MARK:-}" ] || [ ! -e "$MARK" ] || echo begun
