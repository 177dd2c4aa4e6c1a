# Put the copy in the place of the running database: its configuration, its folder, its addresses; clients stay refused.
. ./running.sh
kept=$COPY/kept
settings() { # $1 folder: the files of configuration in it, keys and certificates too
    for file in "$1"/* "$1"/.[!.]*; do
        [ -f "$file" ] || continue
        case ${file##*/} in
            PG_VERSION | postmaster.* | current_logfiles | backup_* | tablespace_map* | *.signal) ;;
            *) printf '%s\n' "${file##*/}" ;;
        esac
    done
}
[ "$(identity "$FENCED")" = "$IDENTITY" ] || fail Drifted "the running database is not in $FENCED"
[ -z "$(servers "$IDENTITY")" ] || fail Drifted "somebody else has started the fenced database in $FENCED; stop it"
if [ -d "$COPY/data" ]; then
    [ ! -e "$DATA" ] || fail Drifted "somebody else has put something in the place of the running database: $DATA"
    remember installing "$OWNER" # from here on it may be stopping, although it still serves
    halt "$(identity "$COPY/data")"
    if [ ! -d "$kept/settings" ]; then
        rm -rf "$kept/settings.new"
        mkdir "$kept/settings.new" || full
        settings "$COPY/data" | while read -r name; do cp -a "$COPY/data/$name" "$kept/settings.new/$name" || exit 1; done || full
        mv "$kept/settings.new" "$kept/settings"
    fi
    settings "$FENCED" | while read -r name; do
        [ "$name" = pg_hba.conf ] || cp -a --remove-destination "$FENCED/$name" "$COPY/data/$name" || exit 1
    done || full
    # It archives nothing until it is known to be good.
    muted >"$COPY/data/postgresql.auto.conf" || full
    cp -a --remove-destination "$kept/guard" "$COPY/data/pg_hba.conf" || full
    rm -f "$COPY/data/standby.signal" "$COPY/data/recovery.signal"
    chmod --reference="$FENCED" "$COPY/data"
    # The log before its own timeline lies in the archive; it must not be archived again.
    for file in "$COPY"/data/pg_wal/????????????????????????; do
        name=${file##*/}
        case $name in "$(cat "$kept/timeline")"*) ;; *) : >"$COPY/data/pg_wal/archive_status/$name.done" || full ;; esac
    done
    sync -f "$COPY/data"
    remember copy "$(identity "$COPY/data")"
    mv -T "$COPY/data" "$DATA" || fail Fatal "$COPY/data cannot be moved to $DATA: may this login write there?"
fi
[ "$(identity "$DATA")" = "$(cat "$kept/copy")" ] || fail Drifted "somebody else has put something at $DATA"
launch "$FENCED/postmaster.opts"
rm -f "$kept/installing"
