# Refuse clients at the database in DATA: GUARD takes the place of its rules, which are kept, and who is in is ended.
. ./running.sh
case $(identity "$DATA") in
    '') fail Drifted "$DATA is not there" ;;
    "$IDENTITY" | "$(cat "$COPY/kept/copy" 2>/dev/null)") ;;
    *) fail Drifted "$DATA is not the database that was looked at" ;;
esac
rules=$(digest "$DATA/pg_hba.conf")
if [ "$rules" != "$SHUT" ]; then
    [ "$rules" = "$RULES" ] || fail Drifted "somebody else changed pg_hba.conf since it was looked at"
    keep "$DATA/pg_hba.conf" "$COPY/kept/pg_hba.conf"
fi
guard
