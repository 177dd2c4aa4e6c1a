# Have files of the log in a folder of this look's own, under the names of one timeline.
# So they are read in one go, whatever timelines they are of, and wherever they come from.
# SEGMENTS is which, of SIZE bytes, of timelines that lead to TIMELINE.
. ./fetching.sh
folder=$(mktemp -d) || exit
trap 'rm -rf "$folder"' EXIT
trap 'exit 143' HUP INT TERM
fetcher "$SIZE" >"$folder/fetch"
cd "$folder" || exit
bring() { sh ./fetch "$1" "./$TIMELINE${1#????????}" 'ln -s' >/dev/null 2>&1; }
