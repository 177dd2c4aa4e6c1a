# Run COMMAND, which brings REVISION to SERVICE.
export REVISION
. ./service.sh
