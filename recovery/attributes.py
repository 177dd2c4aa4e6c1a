"""The search attributes of a recovery: typed keys for code, names and types for a namespace."""

from collections.abc import Sequence
from typing import Any

from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from recovery.report import Report

RUNBOOK = SearchAttributeKey.for_keyword("RecoveryRunbook")
MODE = SearchAttributeKey.for_keyword("RecoveryMode")
PHASE = SearchAttributeKey.for_keyword("RecoveryPhase")
NEEDS = SearchAttributeKey.for_keyword("RecoveryNeeds")
INCIDENT = SearchAttributeKey.for_keyword("RecoveryIncident")
TIER = SearchAttributeKey.for_keyword("RecoveryTier")
SYSTEMS = SearchAttributeKey.for_keyword_list("RecoverySystems")
RTO_MET = SearchAttributeKey.for_bool("RecoveryRtoMet")
PROVEN_AT = SearchAttributeKey.for_datetime("RecoveryProvenAt")
"""When a restore was last proven to work; a verification that fails carries it on."""
VERDICT = SearchAttributeKey.for_keyword("RecoveryVerdict")
BREACHES = SearchAttributeKey.for_int("RecoveryBreaches")
"""How many breaches of its policy a verification found."""

_KEYS: Sequence[SearchAttributeKey[Any]] = (
    RUNBOOK, MODE, PHASE, NEEDS, INCIDENT, TIER, SYSTEMS, RTO_MET, PROVEN_AT, VERDICT, BREACHES,
)  # fmt: skip
_TYPES = {"KEYWORD": "Keyword", "KEYWORD_LIST": "KeywordList", "BOOL": "Bool", "DATETIME": "Datetime", "INT": "Int"}

SEARCH_ATTRIBUTES: dict[str, str] = {key.name: _TYPES[key.indexed_value_type.name] for key in _KEYS}
"""Name to type, spelled as the ``temporal`` command line wants it ("Keyword", "KeywordList", "Datetime", …)."""


def of(now: Report) -> list[SearchAttributeUpdate[Any]]:
    """Return the attributes of a recovery as it stands."""
    pairs: list[tuple[SearchAttributeKey[Any], Any]] = [
        (RUNBOOK, now.runbook),
        (MODE, now.mode),
        (PHASE, now.phase),
        (NEEDS, now.needs or None),
        (INCIDENT, now.incident),
        (TIER, now.tier or None),
        (SYSTEMS, list(now.systems) or None),
        (RTO_MET, now.clock.rto_met if now.ended_at else None),
    ]
    # Unset as well: the start form of the UI fills in what the last run of this id ended with.
    return [key.value_unset() if value is None else key.value_set(value) for key, value in pairs]
