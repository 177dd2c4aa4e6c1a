# Look at the running database: whether it can be put aside, and another one put in its place. Changes nothing.
. ./running.sh
. ./backups.sh
say() { printf '%s\t%s\n' "$1" "$(printf '%s' "$2" | tr '\t\n' '  ')"; }
setting() { "$BIN/postgres" -D "$DATA" -C "$1" 2>/dev/null; }
device() { stat -c %d "$1" 2>/dev/null; }
say identity "$(identity "$DATA")"
"$BIN/pg_controldata" -D "$DATA" 2>/dev/null | sed -n -e "s/^Latest checkpoint's TimeLineID: */timeline\t/p"
say version "$(cat "$DATA/PG_VERSION" 2>/dev/null)"
[ -d "$DATA" ] || exit 0
[ ! -L "$DATA" ] || say bar link
[ "$(device "$DATA")" = "$(device "$(dirname "$DATA")")" ] || say bar mount
[ "$(device "$DATA")" = "$(device "$COPIES")" ] || say bar device
[ -w "$(dirname "$DATA")" ] || say bar parent
[ "$(stat -c %u "$DATA" 2>/dev/null)" = "$(id -u)" ] || say bar owner
[ ! -L "$DATA/pg_wal" ] || say bar wal
[ ! -e "$FENCED" ] || say bar fenced
[ ! -L "$DATA/pg_hba.conf" ] || say outside pg_hba.conf
for pair in hba_file:pg_hba.conf ident_file:pg_ident.conf config_file:postgresql.conf; do
    file=$(setting "${pair%:*}")
    [ -z "$file" ] || [ "$(readlink -f "$file")" = "$(readlink -f "$DATA/${pair#*:}")" ] || say outside "$file"
done
say rules "$(digest "$DATA/pg_hba.conf")"
say free "$(df -B1 --output=avail "$COPIES" 2>/dev/null | tail -n 1 | tr -d ' ')"
server=$(postmaster "$(identity "$DATA")")
if [ -n "$server" ]; then
    say log "$(readlink "/proc/$server/fd/1")"
    say parent "$(cat "/proc/$(parent "$server")/comm" 2>/dev/null)"
    say service "$(sed -n 's|^.*/\([^/]*\.service\)$|\1|p' "/proc/$server/cgroup" 2>/dev/null | head -n 1)"
fi
# Which rule lets this login in over the socket: the first that fits decides. Where nobody can be asked, the file tells.
# Of its options only a map is told as it is: others hold passwords (ldapbindpasswd, radiussecrets).
[ -f "$DATA/pg_hba.conf" ] && awk -v db="$DBNAME" -v role="$DBUSER" -v known="$METHODS" '
    function fits(list, name,  i, n, word) {
        n = split(list, word, ",")
        for (i = 1; i <= n; i++) if (word[i] == "all" || word[i] == name || word[i] == "\"" name "\"") return 1
    }
    function told(option,  name, quotes) { # what stands within quotes is no option of its own
        name = !inside && match(option, /^[a-z_]+=/) ? substr(option, 1, RLENGTH - 1) : "?"
        quotes = gsub(/"/, "\"", option)
        if (name == "map" && quotes % 2 == 0) name = option
        inside = (inside + quotes) % 2
        return name
    }
    $1 == "local" && fits($3, role) {
        rule = method = $4 ~ /^[a-z0-9-]+$/ ? $4 : "?"
        inside = 0
        for (i = 5; i <= NF && $i !~ /^#/ && index(" " known " ", " " method " "); i++) rule = rule " " told($i)
        if (fits($2, db) && !found++) print "written\t" rule
    }' "$DATA/pg_hba.conf"
live=$(ask "select json_build_object(
    'recovery', pg_is_in_recovery(),
    'superuser', (select rolsuper from pg_roles where rolname = current_user),
    'rule', (select r.auth_method || coalesce((
            select string_agg(' ' || case when o like 'map=%' then o else split_part(o, '=', 1) end, '' order by place)
            from unnest(r.options) with ordinality u (o, place) where r.auth_method = any (string_to_array('$METHODS', ' '))), '')
        from pg_hba_file_rules r
        where r.type = 'local' and r.database && array['all', current_database()::text] and exists (
            select from unnest(r.user_name) u where u in ('all', current_user) or u like '+%'
            and case when to_regrole(quote_ident(substr(u, 2))) is not null then pg_has_role(to_regrole(quote_ident(substr(u, 2))), 'member') end)
        order by r.line_number limit 1),
    'replication', exists (select from pg_hba_file_rules r where r.type = 'local' and 'replication' = any (r.database)
        and r.auth_method <> 'reject' and r.user_name && array['all', current_user::text]),
    'faulty', (select count(*) from pg_hba_file_rules where error is not null),
    'unread', (select modification from pg_stat_file('pg_hba.conf')) > pg_conf_load_time(),
    'included', (select array_agg(distinct sourcefile) from pg_file_settings where sourcefile not in (
        current_setting('config_file'), current_setting('data_directory') || '/postgresql.auto.conf')),
    'prepared', (select count(*) from pg_prepared_xacts),
    'standbys', (select array_agg(coalesce(nullif(application_name, ''), 'pid ' || pid)) from pg_stat_replication
        where application_name <> 'pg_basebackup'),
    'slots', (select array_agg(slot_name) from pg_replication_slots where not temporary),
    'tablespaces', (select array_agg(spcname) from pg_tablespace where spcname not in ('pg_default', 'pg_global')),
    'subscriptions', (select array_agg(subname) from pg_subscription where subenabled),
    'workers', (select array_agg(distinct backend_type) from pg_stat_activity where backend_type not in ('archiver',
        'autovacuum launcher', 'autovacuum worker', 'background writer', 'checkpointer', 'client backend',
        'io worker', 'logger', 'logical replication launcher', 'logical replication apply worker',
        'logical replication parallel worker', 'logical replication tablesync worker', 'parallel worker',
        'slotsync worker', 'startup', 'walreceiver', 'walsender', 'walsummarizer', 'walwriter')),
    'databases', (select array_agg(datname order by datname) from pg_database
        where datname not in (current_database(), 'postgres') and not datistemplate),
    'superusers', (select array_agg(distinct usename) from pg_stat_activity join pg_roles on usename = rolname
        where rolsuper and usename <> current_user and backend_type = 'client backend'),
    'connected', (select json_agg(c order by sessions desc) from (
        select coalesce(usename, '') as user, application_name as application,
            coalesce(host(client_addr), 'socket') as address, count(*) as sessions from pg_stat_activity
        where backend_type = 'client backend' and application_name <> '$PGAPPNAME' group by 1, 2, 3
        order by 4 desc limit 20) c),
    'archive_library', current_setting('archive_library', true),
    'archive_command', (select sourcefile is not null from pg_settings where name = 'archive_command' and setting <> ''),
    'archive_mode', current_setting('archive_mode'),
    'synchronous', current_setting('synchronous_standby_names'),
    'senders', current_setting('max_wal_senders')::int,
    'commit_times', current_setting('track_commit_timestamp') = 'on',
    'size', pg_database_size(current_database()))" 2>&1)
case $live in *'{'*'}') live={${live#*\{} ;; *) down=$live live='' ;; esac # before it there may be warnings
if [ -n "$live" ]; then
    say live "$live"
    no_backup | while read -r why; do say unbacked "$why"; done
    [ "$DBNAME" = postgres ] || DBNAME=postgres ask "select 'spare', count(*) from pg_class c join pg_namespace n
        on n.oid = relnamespace where relkind in ('r', 'p', 'm', 'S') and nspname !~ '^(pg_|information_schema\$)'" 2>/dev/null |
        tr '|' '\t'
elif [ -n "$server" ]; then
    say hangs "${down:-it does not answer within 30 s}"
fi
exit 0
