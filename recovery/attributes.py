"""The search attributes of a recovery: typed keys for code, names and types for a namespace."""

from collections.abc import Sequence
from typing import Any

from temporalio.common import SearchAttributeKey

RUNBOOK = SearchAttributeKey.for_keyword("RecoveryRunbook")
MODE = SearchAttributeKey.for_keyword("RecoveryMode")
PHASE = SearchAttributeKey.for_keyword("RecoveryPhase")
NEEDS = SearchAttributeKey.for_keyword("RecoveryNeeds")
INCIDENT = SearchAttributeKey.for_keyword("RecoveryIncident")
TIER = SearchAttributeKey.for_keyword("RecoveryTier")
SYSTEMS = SearchAttributeKey.for_keyword_list("RecoverySystems")
RTO_MET = SearchAttributeKey.for_bool("RecoveryRtoMet")

_KEYS: Sequence[SearchAttributeKey[Any]] = (RUNBOOK, MODE, PHASE, NEEDS, INCIDENT, TIER, SYSTEMS, RTO_MET)
_TYPES = {"KEYWORD": "Keyword", "KEYWORD_LIST": "KeywordList", "BOOL": "Bool"}

SEARCH_ATTRIBUTES: dict[str, str] = {key.name: _TYPES[key.indexed_value_type.name] for key in _KEYS}
"""Name to type, spelled as the ``temporal`` command line wants it ("Keyword", "KeywordList", "Bool")."""
