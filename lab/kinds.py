"""The kinds of accidents."""

from enum import StrEnum


class Kind(StrEnum):
    """Accidents that can be caused on purpose."""

    DROP_TABLE = "drop-table"
    DELETE_ROWS = "delete-rows"
    POSTGRES = "postgres"
    SSH = "ssh"
    LOAD = "load"
    NORTH = "north"
    SOUTH = "south"
    PARTITION = "partition"
    CONFIGURATION = "configuration"
    STOREFRONT = "storefront"
