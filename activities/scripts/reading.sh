# Have files of the log in a folder of this look's own, under the names of one timeline.
# So they are read in one go, whatever timelines they are of, and wherever they come from.
# SEGMENTS is which, of SIZE bytes, of timelines that lead to TIMELINE.
. ./fetching.sh
folder=$(mktemp -d) || exit
trap 'rm -rf "$folder"' EXIT
# A tool that keeps the log asks the control file of the folder that it is called in whose log is meant.
mkdir -p "$folder/global" && cd "$folder" || exit
if [ -r "$DATA/global/pg_control" ]; then ln -s "$DATA/global/pg_control" global/pg_control; else control_file; fi
fetcher "$SIZE" >fetch
bring() { sh ./fetch "$1" "./$TIMELINE${1#????????}" 'ln -s' >/dev/null 2>&1; }
