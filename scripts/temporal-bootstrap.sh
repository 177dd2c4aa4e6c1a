#!/bin/sh
# Give a Temporal what recoveries need: the namespace with its retention, and the search attributes.
# Safe to run again: what is there stays, what is missing is added.
# Needs TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, RETENTION ("90d") and SEARCH_ATTRIBUTES ("Name=Type Name=Type").
set -eu

: "${TEMPORAL_ADDRESS:?}" "${TEMPORAL_NAMESPACE:?}" "${RETENTION:?}" "${SEARCH_ATTRIBUTES:?}"

# Try "$@" until it works, for a minute: right after its start a server refuses much, and a new namespace
# is known everywhere only some seconds later.
patiently() {
    left=60
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        if [ "$left" = 0 ]; then
            "$@" # the last time, with what it says
            return
        fi
        sleep 1
    done
}

ensure_namespace() {
    temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" ||
        temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
}

ensure_attribute() {
    temporal operator search-attribute list | grep -qw "$1" ||
        temporal operator search-attribute create --name "$1" --type "$2"
}

patiently temporal operator cluster health
patiently ensure_namespace
patiently temporal operator namespace update --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
for attribute in $SEARCH_ATTRIBUTES; do
    patiently ensure_attribute "${attribute%%=*}" "${attribute##*=}"
done
echo "namespace $TEMPORAL_NAMESPACE is ready"
