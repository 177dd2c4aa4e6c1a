# What there is of backups and log of the stanza SERVER in a repository of pgBackRest, and how it is laid down and fetched.
# REPOSITORY is its number, 1 where that is "". All goes through the program (CLI with CONFIGURATION), so the repository
# may be on another host, encrypted, or in a cloud. Its "verify" ends with 0 whatever it has found.
. ./json.sh
. ./paced.sh
ask_pgbackrest() {
    "$CLI" ${CONFIGURATION:+--config="$CONFIGURATION"} --log-level-file=off --log-level-console=off \
        --log-level-stderr=error "$@"
}
why_pgbackrest() {
    ask_pgbackrest "$@" 2>&1 >/dev/null | grep ERROR | head -n 1 | tr '\t' ' ' | sed 's/^.*ERROR: *//'
}
told_of() { ask_pgbackrest info --output=json --stanza="$SERVER" --repo="${REPOSITORY:-1}" "$@" 2>/dev/null | json_rows; }
present() { # what the archive of the present database is called
    awk -F '\t' '{ split($1, part, "/") } part[1] == "db" { told[part[3]] = $2 }
        END { if ("id" in told) print told["version"] "-" told["id"] }'
}
list_backups() {
    if ! command -v "$CLI" >/dev/null; then
        printf 'fault\tbackups.cli: there is no program %s; install pgBackRest, or name where it is\n' "$CLI"
        return
    fi
    if [ -n "$CONFIGURATION" ] && [ ! -r "$CONFIGURATION" ]; then
        printf 'fault\tbackups.configuration: %s cannot be read by %s; let it, or name another\n' \
            "$CONFIGURATION" "$(id -un)"
        return
    fi
    rows=$(told_of | sed -n 's/^0\///p')
    if [ -z "$rows" ]; then
        printf 'fault\tbackups.repository: pgBackRest tells nothing of repository %s (%s)\n' "${REPOSITORY:-1}" \
            "$(why_pgbackrest info --output=json --stanza="$SERVER" --repo="${REPOSITORY:-1}")"
        return
    fi
    if [ "$(printf '%s\n' "$rows" | sed -n 's/^status\/code\t//p')" != 0 ]; then # 2 is "no backups"
        printf 'fault\tbackups.server: pgBackRest says of the stanza %s: %s; name one that it has, or mend it\n' "$SERVER" \
            "$(printf '%s\n' "$rows" | sed -n 's/^repo\/0\/status\/message\t//p')"
    fi
    labels=$(printf '%s\n' "$rows" | sed -n 's/^backup\/[0-9]*\/label\t//p')
    # Of databases that were upgraded there is an archive each; the last one is that of the present one.
    of=$(printf '%s\n' "$rows" | present)
    {
        printf '%s\n' "$rows"
        for label in $labels; do
            told_of --set="$label" | sed -n "s/^0\/backup\/0\/tablespace\/[0-9]*\/oid/space\/$label/p"
        done
        [ -z "$of" ] || ask_pgbackrest repo-ls --recurse --repo="${REPOSITORY:-1}" --stanza="$SERVER" \
            "archive/$SERVER/$of" 2>/dev/null | sed 's/^.*\//file\//'
    } | awk -F '\t' '
        function hex(word,    i, sum) {
            for (i = 1; i <= length(word); i++) sum = sum * 16 + index("0123456789ABCDEF", substr(word, i, 1)) - 1
            return sum
        }
        # How long a segment is, it does not say, but which one holds which position; 0 where that fits several lengths.
        function length_of(lsn, name,    half, number, size) {
            split(lsn, half, "/")
            number = hex(substr(name, 17))
            if (number) for (size = 1048576; size <= 1073741824; size *= 2) if (int(hex(half[2]) / size) == number) return size
            return 0
        }
        function say(key, value) { print "backup\t" id "\t" key "\t" value }
        { split($1, part, "/") }
        part[1] == "db" && part[3] == "id" { db[part[2]] = $2 }
        part[1] == "db" && part[3] == "system-id" { system_of[part[2]] = $2 }
        part[1] == "db" && part[3] == "version" { version[part[2]] = $2 }
        part[1] == "backup" {
            n = part[2]
            path = part[3] (4 in part ? "/" part[4] : "")
            told[n, path] = $2
            if (path == "label") ids[n]
        }
        part[1] == "space" { spaces[part[2]]++ }
        part[1] == "file" && part[2] ~ /^[0-9A-F]+-[0-9a-f]+(\.[0-9a-z]+)?$/ && index(part[2], "-") == 25 {
            files[substr(part[2], 1, 24)]++
        }
        END {
            for (n in ids) {
                id = told[n, "label"]
                for (of in db) if (db[of] == told[n, "database/id"]) break
                say("path", id)
                say("version", int(version[of]))
                say("kbytes", int((told[n, "info/size"] + 1023) / 1024))
                say("tablespaces", spaces[id] + 0)
                say("system", system_of[of])
                say("start_lsn", told[n, "lsn/start"])
                say("stop_lsn", told[n, "lsn/stop"])
                say("timeline", hex(substr(told[n, "archive/start"], 1, 8)))
                say("incremental", told[n, "prior"])
                say("stopped", told[n, "timestamp/stop"])
                say("status", told[n, "error"] == "true" ? "with damaged pages" : "ok")
                if (!segment) segment = length_of(told[n, "lsn/start"], told[n, "archive/start"])
                if (!segment) segment = length_of(told[n, "lsn/stop"], told[n, "archive/stop"])
            }
            for (name in files)
                if (files[name] == 1) print "wal\tarchive\t" name "\t" (segment ? segment : 16777216)
                else print "fault\tbackups.server: the segment " name " is in the archive with different contents;" \
                    " find out which other server archives into this stanza, and remove what is not of this one"
        }'
    [ -z "$of" ] || ask_pgbackrest repo-ls --repo="${REPOSITORY:-1}" --stanza="$SERVER" --filter='^[0-9A-F]{8}\.history$' \
        "archive/$SERVER/$of" 2>/dev/null | while read -r name; do
        ask_pgbackrest repo-get --repo="${REPOSITORY:-1}" --stanza="$SERVER" "archive/$SERVER/$of/$name" 2>/dev/null |
            awk -v line="${name%.history}" -v OFS='\t' \
                '$1 ~ /^[0-9]+$/ && $2 ~ /^[0-9A-F]+\/[0-9A-F]+$/ { print "history", line, $1, $2 }'
    done
}
# Lay the backup $1 down in $2, and its tablespaces in folders of $3 by their number. What is there already is removed.
# Every file is checked against its checksum while it is laid down, also those that come from earlier ones of a chain.
lay_down() {
    rm -rf "$2" "$3" "$2.lock"
    spaces=$(told_of --set="$1" | sed -n 's/^0\/backup\/0\/tablespace\/[0-9]*\/oid\t//p') ||
        fail Transient "backups.server: pgBackRest tells nothing of $1"
    backup=$1 copy=$2 folder=$3
    shift 3
    for space in $spaces; do
        set -- "$@" "--tablespace-map=$space=$folder/$space"
    done
    # A lock of its own, and a spool: other copies go on meanwhile, and what the database archives is not touched.
    mkdir -p "$copy" "$copy.lock"
    if ! said=$(paced "${TOTAL:-0}" "${copy%/*}" "$CLI" ${CONFIGURATION:+--config="$CONFIGURATION"} --log-level-file=off \
        --log-level-console=off --log-level-stderr=error restore --stanza="$SERVER" --repo="${REPOSITORY:-1}" --set="$backup" --type=none \
        --pg1-path="$copy" --lock-path="$copy.lock" --spool-path="$copy.lock" "$@" 2>&1); then
        rm -rf "$copy.lock"
        why=$(printf '%s' "$said" | grep ERROR | head -n 1 | sed 's/^.*ERROR: *//')
        case $said in
            *"No space left"*)
                rm -rf "$copy" "$folder" # a full disk would not even let this be undone
                fail Fatal "the disk is full; free room under $(dirname "$copy")"
                ;;
            *"[075]"*) fail Fatal "pgBackRest has no backup $backup of $SERVER any more" ;;
            *FormatError* | *ChecksumError* | *"[029]"* | *"[026]"*) fail Fatal "the backup $backup is damaged: $why" ;;
            *"[055]"*) fail Fatal "of the backup $backup a file is missing: $why" ;;
        esac
        fail Transient "the backup $backup could not be laid down by pgBackRest: $why"
    fi
    rm -rf "$copy.lock"
    rm -f "$copy/recovery.signal"
    chmod 700 "$copy"
}
# Have the control file of the newest backup in "global", where that of the database is lost. One that lies in a bundle with
# other files cannot be had alone: then nothing of the log can be read until the backup is laid down.
control_file() {
    newest=$(told_of | sed -n 's/^0\/backup\/[0-9]*\/label\t//p' | tail -n 1)
    for form in "" ".gz gzip -dc" ".bz2 bzip2 -dc" ".lz4 lz4 -dc" ".zst zstd -dc"; do
        suffix=${form%% *} how=${form#"$suffix"}
        ask_pgbackrest repo-get --repo="${REPOSITORY:-1}" --stanza="$SERVER" \
            "backup/$SERVER/$newest/pg_data/global/pg_control$suffix" 2>/dev/null | ${how:-cat} >global/pg_control 2>/dev/null
        [ ! -s global/pg_control ] || return 0
    done
    rm -f global/pg_control
}
# It asks the database's control file of which system it is: that of the copy, in which the server runs this, is there
# also when the original has been lost.
fetch_command() {
    cat <<FETCH
"$CLI" ${CONFIGURATION:+"\"--config=$CONFIGURATION\""} --log-level-file=off --log-level-console=off --log-level-stderr=error \\
    --no-archive-async --lock-path="\$PWD/.." --stanza="$SERVER" --repo="${REPOSITORY:-1}" --pg1-path="\$PWD" archive-get "\$1" "\$2" && exit 0
exit 1
FETCH
}
in_archive() { # names of what the archive has of the timeline $1 (eight digits)
    of=$(told_of | sed -n 's/^0\///p' | present)
    [ -n "$of" ] || silent
    ask_pgbackrest repo-ls --repo="${REPOSITORY:-1}" --stanza="$SERVER" --recurse --filter="^(.*/)?$1" \
        "archive/$SERVER/$of" 2>/dev/null | sed -nE 's/^(.*\/)?([0-9A-F]{24}|[0-9A-F]{8}\.history)(-.*)?$/\2/p'
}
silent() {
    fail Transient "backups.repository: pgBackRest tells nothing of repository ${REPOSITORY:-1}: $(
        why_pgbackrest info --output=json --stanza="$SERVER" --repo="${REPOSITORY:-1}")"
}
take_in() { :; } # what the database has archived is in the archive
spools() { # where archive-push notes, for itself, what it has archived; nothing where it is not told to wait for others
    for file in ${CONFIGURATION:-/etc/pgbackrest.conf /etc/pgbackrest/*.conf /etc/pgbackrest/conf.d/*.conf}; do
        sed -n 's/^ *spool-path *= *//p' "$file" 2>/dev/null
    done
    echo /var/spool/pgbackrest
}
forget_archived() { # all of the timeline $1, from every repository: all of them got it
    since=$(date +%s) # with archive-async it goes on when the archiver has ended
    while pushes=$(grep -lszF archive-push:async /proc/[0-9]*/cmdline) && grep -qszF "$DATA/pg_wal" $pushes; do
        [ $(($(date +%s) - since)) -lt 60 ] || later "pgBackRest archives $DATA/pg_wal for a minute: does it hang?"
        sleep 0.1
    done
    spools | while read -r spool; do rm -f "$spool/archive/$SERVER/out/$1"* 2>/dev/null || :; done
    keys=$(ask_pgbackrest info --output=json --stanza="$SERVER" 2>/dev/null | json_rows | sed -n 's/^0\/repo\/[0-9]*\/key\t//p')
    [ -n "$keys" ] || silent
    for key in $keys; do
        (REPOSITORY=$key && forget_there "$1") || exit
    done
}
forget_there() { # the same in the repository REPOSITORY alone
    of=$(told_of | sed -n 's/^0\///p' | present)
    [ -n "$of" ] || silent
    for name in $(ask_pgbackrest repo-ls --repo="$REPOSITORY" --stanza="$SERVER" --filter="^$1" "archive/$SERVER/$of"); do
        case $name in *.history) set -- "$1" ;; *) set -- "$1" --recurse ;; esac
        ask_pgbackrest repo-rm --repo="$REPOSITORY" --stanza="$SERVER" ${2:+"$2"} "archive/$SERVER/$of/$name" 2>/dev/null
    done
    left=$(in_archive "$1") || exit
    [ -z "$left" ] || later "pgBackRest does not remove what is in its archive of timeline $1: $(echo "$left" | head -n 1)"
}
no_backup() { # why the next one could not be taken, a line each
    for file in ${CONFIGURATION:-/etc/pgbackrest.conf /etc/pgbackrest/*.conf /etc/pgbackrest/conf.d/*.conf}; do
        sed -n "s/^ *repo${REPOSITORY:-1}-host *= *//p" "$file" 2>/dev/null
    done | tail -n 1 | while read -r host; do
        echo "backups.repository: is on the host $host, and pgBackRest takes backups only there: nobody would take the next" \
            "one. Use extract, or none and replace it by hand"
    done
    "$CLI" ${CONFIGURATION:+--config="$CONFIGURATION"} help backup annotation >/dev/null 2>&1 ||
        echo "backups.cli: this pgBackRest cannot annotate a backup; update it to 2.41 or later"
}
own_backups() { # those that say LABEL
    rows=$(told_of | sed -n 's/^0\///p')
    [ -n "$rows" ] || silent
    printf '%s\n' "$rows" | awk -F '\t' -v label="$LABEL" '
        { split($1, part, "/") }
        part[1] == "backup" && part[3] == "label" { name[part[2]] = $2 }
        part[1] == "backup" && part[3] == "annotation" && part[4] == "label" && $2 == label { own[part[2]] }
        END { for (n in own) print name[n] }'
}
# Take a full one. What a killed one left the next one goes on with, or removes. Older ones expire when the next one is
# taken that is not a recovery's: now they may be wanted.
take_backup() {
    own=$(own_backups) || exit
    [ -z "$own" ] || return 0
    said=$(ask_pgbackrest backup --stanza="$SERVER" --repo="${REPOSITORY:-1}" --type=full --start-fast --no-expire-auto \
        --annotation="label=$LABEL" 2>&1) && return
    why=$(printf '%s' "$said" | grep ERROR | head -n 1 | sed 's/^.*ERROR: *//')
    case $said in
        *"No space left"*) fail Fatal "backups.repository: the disk of repository ${REPOSITORY:-1} is full; free room there" ;;
        *"[031]"*) fail Fatal "backups.cli: this pgBackRest cannot annotate a backup; update it to 2.41 or later: $why" ;;
        *"[072]"*) fail Fatal "backups.repository: take the next backup on the host of the repository: $why" ;;
        *"[050]"*) later "pgBackRest is at work on the stanza $SERVER: $why" ;;
    esac
    later "pgBackRest took no backup of $SERVER: ${why:-$said}"
}
backup_taken() {
    own=$(own_backups) || exit
    [ -z "$own" ] || printf 'backup\t%s\nlabel\t%s\n' "$own" "$LABEL"
}
drop_taken() {
    own=$(own_backups) || exit
    for one in $own; do
        said=$(ask_pgbackrest expire --stanza="$SERVER" --repo="${REPOSITORY:-1}" --set="$one" 2>&1) && continue
        why=$(printf '%s' "$said" | grep ERROR | head -n 1 | sed 's/^.*ERROR: *//')
        case $said in
            *"[075]"*) fail Refused "the backup $one is the only full one that is left: $why" ;;
        esac
        later "the backup $one was not removed by pgBackRest: $why"
    done
}
