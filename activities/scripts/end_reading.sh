# End what a cut-off export of what only DATA has left: the server that reads DATA, if it was begun for that, and the files.
. ./running.sh
. ./parted.sh
fold=$OUT.partial
[ -e "$fold" ] && [ "$(cat "$fold/owner" 2>/dev/null)" = "$OWNER" ] || exit 0
[ ! -e "$fold/reading/opts" ] || put_back # before that nothing was started
rm -rf "$fold"
