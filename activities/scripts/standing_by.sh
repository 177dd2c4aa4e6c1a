# What the scripts of a switch share: how the database in DATA becomes a standby of the one at UPSTREAM.
streams() { # whether it replicates the one at UPSTREAM now
    ask "select 1 from pg_stat_wal_receiver where status = 'streaming' and sender_host || ':' || sender_port = '$FROM'" 2>/dev/null
}
settle() { # write down whom it follows, over whatever a rewind or a base backup brought from the other site
    [ -e "$COPY/kept/auto.conf" ] || fail Fatal "the settings that were kept of $DATA are not in $COPY/kept any more"
    { grep -v '^[[:space:]]*primary_\(conninfo\|slot_name\)' "$COPY/kept/auto.conf"; printf "primary_conninfo = '%s'\n" "$UPSTREAM"; } \
        >"$DATA/postgresql.auto.conf.new" && mv "$DATA/postgresql.auto.conf.new" "$DATA/postgresql.auto.conf" || full
    for file in postgresql.conf pg_hba.conf pg_ident.conf; do
        [ ! -e "$COPY/kept/$file" ] || cp -a --remove-destination "$COPY/kept/$file" "$DATA/$file" || full
    done
    : >"$DATA/standby.signal" || full
}
keep_settings() { # of DATA, once: what another site's copy brings with it would take their place
    [ ! -e "$COPY/kept/role" ] || return 0
    mkdir -p "$COPY/kept" || full
    for file in postgresql.conf pg_hba.conf pg_ident.conf; do
        [ ! -e "$DATA/$file" ] || cp -a "$DATA/$file" "$COPY/kept/$file" || full
    done
    cp -a "$DATA/postgresql.auto.conf" "$COPY/kept/auto.conf" || full
    cp -a "$DATA/postmaster.opts" "$COPY/kept/opts" 2>/dev/null
    server=$(postmaster "$(identity "$DATA")")
    [ -z "$server" ] || remember log "$(readlink "/proc/$server/fd/1")"
    remember role "$OWNER"
}
parted() { # whether DATA has log that the one at UPSTREAM lacks; it is stopped
    "$BIN/pg_rewind" -n -D "$DATA" --source-server="$UPSTREAM" >"$COPY/kept/rewind" 2>&1 || return 0
    ! grep -q 'no rewind required' "$COPY/kept/rewind"
}
rejoin() { # stop DATA, take back what only it has, and have it follow the one at UPSTREAM
    at=$(identity "$DATA")
    if [ -n "$at" ]; then
        : >"$DATA/standby.signal" || full # from here on it does not come up as a primary, whoever starts it
        halt "$at"
        rm -f "$DATA/recovery.signal"
        # pg_rewind wants one that was shut down in order; a standby that was killed is brought to that by itself.
        if parted && ! "$BIN/pg_rewind" -D "$DATA" --source-server="$UPSTREAM" >"$COPY/kept/rewind" 2>&1; then
            anew
        fi
    else
        anew
    fi
    settle
    unlock
    opts=$DATA/postmaster.opts
    [ -s "$opts" ] || opts=$COPY/kept/opts
    launch "$opts"
}
anew() { # by a base backup, where a rewind cannot do it; the old files go only once the new ones are whole
    rm -rf "$DATA.joining"
    said=$("$BIN/pg_basebackup" -w -D "$DATA.joining" -d "$UPSTREAM" --checkpoint=fast --wal-method=stream 2>&1) || {
        case $said in *'No space left'*) fail Fatal "the disk is full; free room beside $DATA" ;; esac
        later "no base backup can be taken from $FROM: $(printf '%s' "$said" | tail -n 1)"
    }
    cp -a "$COPY/kept/opts" "$DATA.joining/postmaster.opts" 2>/dev/null
    rm -rf "$DATA.parted"
    [ ! -e "$DATA" ] || mv -T "$DATA" "$DATA.parted" || later "$DATA cannot be moved aside"
    mv -T "$DATA.joining" "$DATA" && rm -rf "$DATA.parted"
}
await_stream() {
    since=$(date +%s)
    until [ "$(streams)" = 1 ]; do
        [ $(($(date +%s) - since)) -lt 60 ] || later "$DATA does not come to replicate $FROM; see its log"
        sleep 0.1
    done
}
