# Take the copy out of the place of the running database again, and start it beside it as it was, if it served there.
. ./running.sh
kept=$COPY/kept
copy=$(cat "$kept/copy" 2>/dev/null)
# Told by whoever looks from here on. Written by "install_copy" it says that the server beside may be about to end, empty
# that whatever runs there was started to stay; that takes no room on a full disk, and is done without if it must be.
mkdir -p "$kept"
touch "$kept/installing" 2>/dev/null || :
rm -rf "$kept/settings.done"
if [ ! -d "$COPY/data" ]; then
    [ -n "$copy" ] && [ "$(identity "$DATA")" = "$copy" ] || fail Drifted "the copy is neither in $COPY nor in $DATA"
    halt "$copy"
    mv -T "$DATA" "$COPY/data" || later "$DATA cannot be moved to $COPY/data"
fi
copy=$(identity "$COPY/data")
if [ -d "$kept/settings" ]; then
    halt "$copy"
    for file in "$kept/settings"/* "$kept/settings"/.[!.]*; do
        [ ! -f "$file" ] || cp -a --remove-destination "$file" "$COPY/data/" || later "is the disk of $COPY full?"
    done
    for file in "$FENCED"/*; do # what only the running database's configuration had
        name=${file##*/}
        case $name in
            PG_VERSION | postmaster.* | current_logfiles | backup_* | tablespace_map* | *.signal) ;;
            *) [ ! -f "$file" ] || [ -e "$kept/settings/$name" ] || rm -f "$COPY/data/$name" ;;
        esac
    done
    # At once: of half a folder the rest would be taken for what only the running database had.
    mv -T "$kept/settings" "$kept/settings.done" && rm -rf "$kept/settings.done"
fi
rm -f "$kept/copy"
[ ! -s "$kept/installing" ] || halt "$copy"
[ ! -s "$kept/installing" ] || : >"$kept/installing"
if [ "$COPYSERVED" = no ]; then
    rm -f "$kept/installing"
    exit 0
fi
DATA=$COPY/data SOCKETS=$COPY/run PORT=$COPYPORT
if [ -z "$(servers "$copy")" ]; then
    unlock
    env -u RECOVERY_JOB -u LC_ALL -u PGAPPNAME RECOVERY_COPY="$COPY" \
        "$BIN/pg_ctl" -D "$DATA" -l "$COPY/log" -W start >/dev/null 2>&1 </dev/null
fi
tries=0
until [ "$(ask 'select 1' 2>"$kept/asked")" = 1 ]; do
    [ -n "$(servers "$copy")" ] || tries=$((tries + 1)) # however long it takes to recover, it is waited for
    [ "$tries" -lt 1200 ] || later "the copy does not start: $(tail -n 1 "$COPY/log")"
    sleep 0.05
done
rm -f "$kept/installing"
