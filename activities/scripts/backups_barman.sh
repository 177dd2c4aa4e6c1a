# What there is of backups and log in Barman's catalogue of SERVER, and how it is laid down and fetched.
# Barman (CLI with CONFIGURATION) keeps it on this host, and its user is ours. It is never asked to "check-backup": that
# marks a backup as failed, for good, while a segment is away.
. ./json.sh
. ./paced.sh
. ./flushing.sh
ask_barman() { "$CLI" ${CONFIGURATION:+-c} ${CONFIGURATION:+"$CONFIGURATION"} "$@"; }
why_barman() { ask_barman "$@" 2>&1 >/dev/null | tail -n 1 | tr '\t' ' ' | sed 's/^ERROR: //'; }
catalogue() { # sets "rows": what Barman knows of SERVER and of each backup that is done
    rows=$(ask_barman sync-info "$SERVER" 2>/dev/null | json_rows) && [ -n "$rows" ]
}
last_said() { printf '%s\n' "$said" | grep . | tail -n 1 | sed 's/^ERROR: //'; }
chain_of() { # from the backup $1 to the full one that it begins with
    one=$1
    while [ -n "$one" ]; do
        echo "$one"
        one=$(known "backups/$one/parent_backup_id")
    done
}
known() { printf '%s\n' "$rows" | awk -F '\t' -v path="$1" '$1 == path { print $2 }'; }
list_backups() {
    if ! command -v "$CLI" >/dev/null; then
        printf 'fault\tbackups.cli: there is no program %s; install Barman, or name where it is\n' "$CLI"
        return
    fi
    if [ -n "$CONFIGURATION" ] && [ ! -r "$CONFIGURATION" ]; then
        printf 'fault\tbackups.configuration: %s cannot be read by %s; let it, or name another\n' \
            "$CONFIGURATION" "$(id -un)"
        return
    fi
    if ! catalogue; then
        printf 'fault\tbackups.server: Barman tells nothing of %s (%s); name one that it has\n' \
            "$SERVER" "$(why_barman sync-info "$SERVER")"
        return
    fi
    command -v rsync >/dev/null || printf 'fault\tbackups.cli: Barman lays backups down with rsync; install it\n'
    wals=$(known config/wals_directory)
    [ -d "$wals" ] && [ -r "$wals" ] ||
        printf 'fault\tbackups.server: the log of %s lies in %s; have it in a folder that can be read here\n' "$SERVER" "$wals"
    {
        printf '%s\n' "$rows"
        ask_barman -f json list-backups "$SERVER" 2>/dev/null | json_rows | sed 's/^[^/]*/listed/'
        find "$wals" "$(known config/incoming_wals_directory)" "$(known config/streaming_wals_directory)" -maxdepth 2 \
            -type f -printf 'found/%f\t%s\n' 2>/dev/null
    } | awk -F '\t' -v server="$SERVER" '
        function hex(word,    i, sum) {
            for (i = 1; i <= length(word); i++) sum = sum * 16 + index("0123456789ABCDEF", substr(word, i, 1)) - 1
            return sum
        }
        # Copied by pg_basebackup, a backup ends for Barman where the next segment begins: it needs nothing of that one.
        function within(lsn, size,    half, low) {
            if (split(lsn, half, "/") != 2) return lsn
            low = hex(half[2])
            if (low % size) return lsn
            return low ? half[1] "/" sprintf("%X", low - 1) : sprintf("%X/FFFFFFFF", hex(half[1]) - 1)
        }
        function say(key, value) { print "backup\t" id "\t" key "\t" value }
        { split($1, part, "/") }
        part[1] == "backups" && part[3] != "tablespaces" { told[part[2], part[3]] = $2 }
        part[1] == "backups" && part[3] == "tablespaces" && part[5] == 1 { spaces[part[2]]++ }
        part[1] == "listed" && part[3] == "backup_id" { ids[part[2]] = $2 }
        part[1] == "listed" { listed[part[2], part[3]] = $2 }
        part[1] == "wals" { segments[part[2], part[3]] = $2 }
        part[1] == "wals" && part[3] == "name" { names[part[2]] }
        part[1] == "found" && part[2] ~ /^[0-9A-F]+$/ && length(part[2]) == 24 { found[part[2]] = $2 }
        END {
            segment = 16777216
            for (n in ids) {
                id = ids[n]
                say("path", id)
                say("status", listed[n, "status"])
                if (listed[n, "status"] != "DONE") continue # Barman does not let it be used
                size = told[id, "cluster_size"] ? told[id, "cluster_size"] : told[id, "size"]
                segment = told[id, "xlog_segment_size"] ? told[id, "xlog_segment_size"] : segment
                say("version", int(told[id, "version"] / 10000))
                say("kbytes", int((size + 1023) / 1024))
                say("tablespaces", spaces[id] + 0)
                say("system", told[id, "systemid"])
                say("start_lsn", told[id, "begin_xlog"])
                say("stop_lsn", within(told[id, "end_xlog"], segment))
                say("timeline", told[id, "timeline"])
                say("incremental", told[id, "parent_backup_id"])
                say("stopped", listed[n, "end_time_timestamp"])
            }
            for (n in names) noted[segments[n, "name"]] = segments[n, "size"]
            for (name in found) # one that is compressed is whole when it has the size that Barman wrote down
                if (found[name] == (name in noted ? noted[name] : segment)) print "wal\tarchive\t" name "\t" segment
                else { cut = name; cuts++ }
            if (cuts) print "fault\tbackups.server: " cuts " segments of the log are not as long as Barman wrote down," \
                " one is " cut "; bring them back, or where it is its list that is wrong: barman rebuild-xlogdb " server
        }'
    find "$wals" -maxdepth 1 -type f -name '????????.history' -printf '%f\n' 2>/dev/null | while read -r name; do
        ask_barman get-wal "$SERVER" "$name" 2>/dev/null | awk -v line="${name%.history}" -v OFS='\t' \
            '$1 ~ /^[0-9]+$/ && $2 ~ /^[0-9A-F]+\/[0-9A-F]+$/ { print "history", line, $1, $2 }'
    done
}
# Lay the backup $1 down in $2, and its tablespaces in folders of $3 by their number. What is there already is removed.
lay_down() {
    rm -rf "$2" "$3" "$2.staged"
    catalogue || fail Transient "backups.server: Barman tells nothing of $SERVER: $(why_barman sync-info "$SERVER")"
    [ "$(known "backups/$1/status")" = DONE ] || fail Fatal "Barman has no backup $1 of $SERVER that is done any more"
    # Put together from a chain, a file gets a new checksum, and the damage in a block of one of them is not seen in it:
    # each is checked beside.
    chain=$(chain_of "$1") checks=
    if [ "$chain" != "$1" ]; then
        all_checked "$chain" &
        checks=$!
    fi
    given=$IFS
    IFS='
'
    # shellcheck disable=SC2046  # two words a tablespace
    set -- "$1" "$2" "$3" $(printf '%s\n' "$rows" | awk -F '\t' -v id="$1" -v folder="$3" '
        split($1, part, "/") == 5 && part[1] == "backups" && part[2] == id && part[3] == "tablespaces" {
            if (part[5] == 0) name = $2
            if (part[5] == 1) print "--tablespace\n" name ":" folder "/" $2
        }')
    IFS=$given
    backup=$1 copy=$2 folder=$3
    shift 3
    mkdir "$copy.staged"
    failed=
    # "get-wal": no log is copied along, it is fetched as it is needed.
    said=$(paced "${TOTAL:-0}" "${copy%/*}" "$CLI" ${CONFIGURATION:+-c} ${CONFIGURATION:+"$CONFIGURATION"} restore --get-wal --staging-path "$copy.staged" --staging-location local "$@" \
        "$SERVER" "$backup" "$copy" 2>&1) || failed=yes
    rm -rf "$copy.staged"
    [ -z "$checks" ] || wait "$checks" || exit # damage is said before what comes of it
    if [ -n "$failed" ]; then
        case $said in
            *"No space left"*)
                rm -rf "$copy" # a full disk would not even let this be undone
                fail Fatal "the disk is full; free room under $(dirname "$copy")"
                ;;
            *"Permission denied"* | *"No such file"* | *"not in PATH"*)
                fail Fatal "the backup $backup cannot be laid down by Barman: $(last_said)"
                ;;
        esac
        fail Transient "the backup $backup could not be laid down by Barman: $(last_said)"
    fi
    if [ -e "$copy/backup_manifest.$backup" ]; then
        mv "$copy/backup_manifest.$backup" "$copy/backup_manifest"
    else # of a compressed one it stays in the catalogue
        cp "$(known config/basebackups_directory)/$backup/data/backup_manifest" "$copy/backup_manifest" 2>/dev/null ||
            fail Fatal "the backup $backup has no manifest to check it by; run: barman generate-manifest $SERVER $backup"
    fi
    # What Barman changed for a recovery of its own is taken back: what is checked, and left, is what was backed up.
    find "$copy" -name '*.origin' -type f | while read -r file; do
        grep -qF "\"${file#"$copy/"}\"" "$copy/backup_manifest" || mv "$file" "${file%.origin}"
    done
    # A map of tablespaces would lead into the original: the links are made by Barman.
    rm -f "$copy/recovery.signal" "$copy/.barman-recover.info" "$copy/tablespace_map"
    flush "$copy" "$folder" &
    flushing=$! wrong=
    said=$("$BIN/pg_verifybackup" -n -q -e -i tablespace_map "$copy" 2>&1) || wrong=yes
    flushed "$flushing"
    [ -z "$wrong" ] || fail Fatal "the backup $backup does not match its manifest: $(printf '%s' "$said" | head -n 1)"
}
all_checked() { # $1 backups, one a line; Barman's "verify-backup" does the same, and takes half a second more for each
    for member in $1; do
        said=$("$BIN/pg_verifybackup" -n -q -e "$(known config/basebackups_directory)/$member/data" 2>&1) ||
            fail Fatal "the backup $member does not match its manifest: $(printf '%s' "$said" | head -n 1)"
    done
}
control_file() { :; } # it does not ask for one
# Barman takes a third of a second to say that there is none, and that is asked often: the folders are looked at first.
fetch_command() {
    [ -n "${rows:-}" ] || catalogue ||
        fail Transient "backups.server: Barman tells nothing of $SERVER: $(why_barman sync-info "$SERVER")"
    cat <<FETCH
log=\$(printf '%.16s' "\$1")
for file in "$(known config/wals_directory)/\$log/\$1" "$(known config/wals_directory)/\$1" \\
    "$(known config/incoming_wals_directory)/\$1" "$(known config/streaming_wals_directory)/\$1"; do
    [ -f "\$file" ] || continue
    if "$CLI" ${CONFIGURATION:+-c} ${CONFIGURATION:+\"$CONFIGURATION\"} get-wal "$SERVER" "\$1" >"\$2.fetched" && [ -s "\$2.fetched" ]; then
        mv "\$2.fetched" "\$2" && exit 0
    fi
done
rm -f "\$2.fetched"
exit 1
FETCH
}
in_archive() { # names of what the archive has of the timeline $1 (eight digits)
    [ -n "${rows:-}" ] || catalogue || silent
    find "$(known config/wals_directory)" -maxdepth 2 -type f -name "$1*" -printf '%f\n'
}
silent() { fail Transient "backups.server: Barman tells nothing of $SERVER: $(why_barman sync-info "$SERVER")"; }
take_in() { ask_barman archive-wal "$SERVER" >/dev/null 2>&1 || :; } # as Barman's cron does every minute
forget_archived() { # all of the timeline $1
    catalogue || silent
    wals=$(known config/wals_directory) coming=$(known config/incoming_wals_directory)
    since=$(date +%s)
    # Whoever is just archiving it writes it down at last: the list is made anew until it has nothing of it.
    while
        rm -f "$coming/$1"* "$coming/.$1"*
        had=$(find "$wals" "$coming" -maxdepth 2 -name "$1*" -printf yes -quit)
        find "$wals" -mindepth 1 -maxdepth 1 -name "$1*" -exec rm -rf {} +
        [ -n "$had" ] || printf '%s\n' "$rows" | grep -qE "^wals/[0-9]+/name${tab}$1"
    do
        [ $(($(date +%s) - since)) -lt 120 ] || later "Barman's list of the log still has timeline $1: barman rebuild-xlogdb $SERVER"
        ask_barman rebuild-xlogdb "$SERVER" >/dev/null 2>&1
        catalogue || silent
    done
}
tab=$(printf '\t')
no_backup() { # why the next one could not be taken, a line each: what Barman itself would not begin for
    catalogue || return 0 # that is told where backups are listed
    [ -z "$(known config/primary_ssh_command)" ] || {
        echo "backups.server: this Barman has its backups from another one, which alone takes them: nobody would take the" \
            "next one. Use extract, or none and replace it by hand"
        return
    }
    ask_barman check "$SERVER" 2>/dev/null | sed -n "s/^$tab\(.*\): FAILED\(.*\)/\1\2/p" |
        grep -vE '^(minimum redundancy requirements|backup maximum age|backup minimum size|failed backups|archiver errors|empty (incoming|streaming) directory|(incoming|streaming) WALs directory|wal maximum age|PostgreSQL server is standby)' |
        while read -r why; do
            echo "backups.server: Barman would not take the next backup of $SERVER: $why; see: barman check $SERVER"
        done
}
own_backups() { # those that say LABEL: id and status
    rows=$(ask_barman -f json list-backups "$SERVER" 2>/dev/null) || silent
    printf '%s\n' "$rows" | json_rows | awk -F '\t' -v label="$LABEL" '
        { count = split($1, part, "/"); told[part[count - 1], part[count]] = $2; seen[part[count - 1]] }
        END { for (n in seen) if (told[n, "backup_name"] == label) print told[n, "backup_id"], told[n, "status"] }'
}
whole_one() { # of those on standard input: the id of one of which all is copied
    sed -nE 's/ (DONE|WAITING_FOR_WALS)$//p' | head -n 1
}
# Take a full one; what a killed one left is removed first. Barman's "check-backup" marks as failed what lacks a segment
# before one that is there: here they come in order, from the database itself.
take_backup() {
    own=$(own_backups) || exit
    printf '%s\n' "$own" | while read -r one status; do
        case $status in DONE | WAITING_FOR_WALS | '') ;; *) deleted "$one" || exit ;; esac
    done || exit
    if [ -z "$(printf '%s\n' "$own" | whole_one)" ]; then
        said=$(ask_barman backup --name "$LABEL" --immediate-checkpoint "$SERVER" 2>&1) || not_taken
    fi
    since=$(date +%s)
    while
        own=$(own_backups) || exit
        one=$(printf '%s\n' "$own" | whole_one)
        [ -n "$one" ] || later "Barman took no backup of $SERVER: $(last_said)"
        ! printf '%s\n' "$own" | grep -qxF "$one DONE"
    do
        [ $(($(date +%s) - since)) -lt 120 ] || later "the log of the backup $one does not come into Barman's archive"
        take_in
        ask_barman check-backup "$SERVER" "$one" >/dev/null 2>&1
        sleep 0.1
    done
}
not_taken() { # what Barman said
    why=$(printf '%s\n' "$said" | grep -E 'ERROR|DETAILS' | tr '\n' ' ' | sed 's/ERROR: //')
    case $said in
        *"No space left"*) fail Fatal "the disk of Barman is full; free room under $(catalogue && known config/basebackups_directory)" ;;
        *"Another backup process"* | *"lock"*) later "Barman is at work on $SERVER: ${why:-$(last_said)}" ;;
        *"Impossible to start"*) fail Fatal "Barman takes no backup of $SERVER: $(no_backup | head -n 1)" ;;
        *"unrecognized arguments: --name"*) fail Fatal "backups.cli: this Barman cannot name a backup; update it to 3.3 or later" ;;
    esac
    later "Barman took no backup of $SERVER: ${why:-$(last_said)}"
}
backup_taken() {
    own=$(own_backups) || exit
    one=$(printf '%s\n' "$own" | sed -n 's/ DONE$//p' | head -n 1)
    [ -z "$one" ] || printf 'backup\t%s\nlabel\t%s\n' "$one" "$LABEL"
    [ -n "$one" ] || [ -z "$own" ] || printf 'partial\tyes\n'
}
deleted() { # $1 a backup of this recovery
    said=$(ask_barman delete "$SERVER" "$1" 2>&1) && return
    case $said in
        *"minimum redundancy"* | *"keep request"*) fail Refused "the backup $1 was not removed by Barman: $(printf '%s\n' "$said" | head -n 1)" ;;
    esac
    later "the backup $1 was not removed by Barman: $(last_said)"
}
drop_taken() {
    own=$(own_backups) || exit
    printf '%s\n' "$own" | while read -r one _; do [ -z "$one" ] || deleted "$one" || exit; done || exit
}
