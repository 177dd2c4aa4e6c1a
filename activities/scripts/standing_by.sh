# What the scripts of a switch share: how the database in DATA becomes a standby of the one at UPSTREAM.
control() { "$BIN/pg_controldata" -D "$DATA" 2>/dev/null | sed -n "s/^$1: *//p"; }
streams() { # whether it replicates the one at UPSTREAM now
    ask "select 1 from pg_stat_wal_receiver where status = 'streaming' and sender_host || ':' || sender_port = '$FROM'" 2>/dev/null
}
own() { # $1 folder: what is this site's own in it, and must not come from the other one
    for file in "$1"/*.conf "$1"/conf.d "$1"/*.crt "$1"/*.key "$1"/*.pem "$1"/postmaster.opts; do
        [ ! -e "$file" ] || printf '%s\n' "$file"
    done
}
keep_settings() { # of DATA, once; the role is written last, and tells that all of it is there
    [ ! -e "$COPY/kept/role" ] || return 0
    [ -d "$DATA" ] || fail Drifted "$DATA is not there any more"
    options_back
    rm -rf "$COPY/kept/files"
    mkdir -p "$COPY/kept/files" || full
    own "$DATA" | while read -r file; do cp -a "$file" "$COPY/kept/files/" || exit 1; done || full
    server=$(postmaster "$(identity "$DATA")")
    # Where none runs, a recovery that stopped it may have kept where it logged.
    log=$([ -n "$server" ] && readlink "/proc/$server/fd/1" || cat "$DATA".switch-*/kept/log 2>/dev/null | tail -n 1)
    [ -z "$log" ] || remember log "$log"
    remember system "$(control 'Database system identifier')"
    remember role "$OWNER"
}
settle() { # $1 folder: what was kept, over what came from the other site; last of all what makes a standby of it
    [ -e "$COPY/kept/role" ] || fail Fatal "the settings that were kept of $DATA are not in $COPY/kept any more"
    own "$1" | while read -r file; do [ -e "$COPY/kept/files/${file##*/}" ] || rm -rf "$file"; done
    for file in "$COPY/kept/files"/*; do
        [ ! -d "$file" ] || rm -rf "$1/${file##*/}"
        cp -a --remove-destination "$file" "$1/" || full
    done
    if [ -z "${restores:-}" ]; then # it follows another one than it ever did
        auto=$1/postgresql.auto.conf
        quoted=$(printf '%s' "$UPSTREAM" | sed "s/[\\\\']/&&/g")
        { grep -v '^[[:space:]]*primary_\(conninfo\|slot_name\)' "$COPY/kept/files/postgresql.auto.conf"
            printf "primary_conninfo = '%s'\n" "$quoted"; } >"$auto.new" || full
        chmod --reference="$auto" "$auto.new" && mv "$auto.new" "$auto" || full
    fi
    : >"$1/standby.signal" || full
}
reach() { # that the one at UPSTREAM is there, and the same database: another one's files must not take its place
    said=$(timeout 20 "$BIN/psql" -wXAtq -F ' ' -d "$UPSTREAM replication=true" -c 'IDENTIFY_SYSTEM' 2>&1) ||
        later "$FROM cannot be replicated: $(printf '%s' "${said:-no answer}" | tail -n 1)"
    system=$(printf '%s\n' "$said" | sed -n 's/^\([0-9][0-9]*\) .*/\1/p')
    [ "$system" = "$(cat "$COPY/kept/system")" ] ||
        fail Refused "at $FROM there is another database ($system, not $(cat "$COPY/kept/system")); see who put it there"
}
parted() { # whether DATA has log that the one at UPSTREAM lacks; it is stopped
    "$BIN/pg_rewind" -n -D "$DATA" --source-server="$UPSTREAM" >"$COPY/kept/rewind" 2>&1 || return 0
    ! grep -q 'no rewind required' "$COPY/kept/rewind"
}
aside() { # $1 folder: put DATA there
    rm -rf "$1"
    mv -T "$DATA" "$1" || fail Fatal "$DATA cannot be renamed (is it a mount point?); make it a standby by hand"
}
rejoin() { # stop DATA, take back what only it has, and have it follow the one at UPSTREAM; 1 if it does not come up
    reach
    if [ -e "$DATA" ]; then
        : >"$DATA/standby.signal" || full # from here on it does not come up as a primary, whoever starts it
        halt "$(identity "$DATA")"
        rm -f "$DATA/recovery.signal"
        settle "$DATA"
        case $(control 'Database cluster state') in
            'shut down'*) ! parted || rewind || anew ;;
            'in archive recovery') ;; # a standby that was killed, or a base backup: it goes on by itself, or never will
            *) rewind || anew ;;
        esac
    else
        anew
    fi
    patience=600
    launch "$DATA/postmaster.opts"
}
rewind() { # out of its place: half rewound, or without standby.signal, it must not be started by anybody
    aside "$COPY/rewinding"
    rm -f "$COPY/rewinding/standby.signal" # else a primary that was killed could not be brought to an end in order, by pg_rewind
    "$BIN/pg_rewind" -D "$COPY/rewinding" --source-server="$UPSTREAM" >"$COPY/kept/rewind" 2>&1 || return 1
    # It is consistent at a record that an idle primary may never write; a base backup begins with a checkpoint.
    "$BIN/pg_basebackup" -w -d "$UPSTREAM" -D - -F t -X none --checkpoint=fast 2>/dev/null | head -c 1 >/dev/null
    settle "$COPY/rewinding"
    mv -T "$COPY/rewinding" "$DATA"
}
anew() { # by a base backup, where a rewind cannot do it; the old files go only once the new ones are whole
    if [ ! -e "$COPY/joining/standby.signal" ]; then
        rm -rf "$COPY/joining"
        said=$("$BIN/pg_basebackup" -w -D "$COPY/joining" -d "$UPSTREAM" --checkpoint=fast --wal-method=stream 2>&1) || {
            rm -rf "$COPY/joining"
            case $said in *'No space left'*) fail Fatal "the disk is full; free room beside $DATA" ;; esac
            later "no base backup can be taken from $FROM: $(printf '%s' "$said" | tail -n 1)"
        }
        settle "$COPY/joining"
    fi
    [ ! -e "$DATA" ] || aside "$COPY/parted"
    mv -T "$COPY/joining" "$DATA"
}
await_stream() { # 1 if that can never come: the log that it lacks is not there any more
    since=$(date +%s)
    until [ "$(streams)" = 1 ]; do
        log=$(readlink "/proc/$(postmaster "$(identity "$DATA")")/fd/1")
        [ ! -f "$log" ] || ! tail -n 5 "$log" | grep -q 'requested WAL segment .* has already been removed' || return 1
        [ $(($(date +%s) - since)) -lt 60 ] || later "$DATA does not come to replicate $FROM; see its log"
        sleep 0.1
    done
}
join() { # have DATA replicate the one at UPSTREAM, whatever that takes
    { [ "$(streams)" = 1 ] || rejoin; } && await_stream && return
    reach
    halt "$(identity "$DATA")"
    anew
    patience=''
    launch "$DATA/postmaster.opts"
    await_stream || later "the log that $DATA needs is gone from $FROM already; keep more of it there"
}
drop() { # what was kept; the role goes last, so that a drop that was killed is seen
    for file in "$COPY"/* "$COPY/kept"/*; do
        case $file in */kept | */kept/role) ;; *) rm -rf "$file" ;; esac
    done
    rm -rf "$COPY"
}
