# Tell whether a service runs, as its own COMMAND says. Changes nothing.
if sh -c "$COMMAND" >/dev/null 2>&1 </dev/null; then echo runs; else echo stopped; fi
