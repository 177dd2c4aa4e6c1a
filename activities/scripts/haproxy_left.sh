# Tell how many sessions there still are at each server of BACKEND.
. ./haproxy.sh
ask "show stat"
printf '%s\n' "$told" | awk -F, -v OFS='\t' -v backend="$BACKEND" '
    $1 == "# pxname" { for (i = 1; i <= NF; i++) if ($i == "scur") sessions = i }
    $1 == backend && $2 != "FRONTEND" && $2 != "BACKEND" { print $2, $sessions }'
