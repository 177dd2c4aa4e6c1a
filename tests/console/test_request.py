"""What was typed, as the object that starts a recovery."""

import pytest

from console.request import parameters, request
from recovery.errors import Invalid


def test_values_are_text_unless_they_look_like_json() -> None:
    pairs = ["at=2026-11-21T22:00:00Z", 'tables=["public.orders"]', "empty=", "sql=a=b", "port=5"]
    assert parameters(pairs, '{"amcheck": false}') == {
        "amcheck": False,
        "at": "2026-11-21T22:00:00Z",
        "tables": ["public.orders"],
        "empty": "",
        "sql": "a=b",
        "port": "5",
    }


@pytest.mark.parametrize(
    ("pairs", "text", "said"),
    [
        (["secret"], "", "parameter: write it as key=value"),
        (["=secret"], "", "parameter: write it as key=value"),
        (["a=1", "a=secret"], "", "parameters.a: is given twice"),
        (["a=secret"], '{"a": 1}', "parameters.a: is given twice"),
        (["a=[secret"], "", "parameters.a: is no JSON"),
        ([], "{secret", "parameters: is no JSON"),
        ([], '["secret"]', "parameters: is no JSON object"),
    ],
)
def test_bad_parameters_name_the_field_and_no_value(pairs: list[str], text: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parameters(pairs, text)
    assert caught.value.message == said


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"reason": ""}, "reason: "),
        ({"reason": "x" * 2001}, "reason: "),
        ({"mode": "wet"}, "mode: "),
        ({"detected_at": "2026-11-21T22:00:00"}, "detected_at: "),
        ({"outage_started_at": "yesterday"}, "outage_started_at: "),
        ({"incident": "x" * 201}, "incident: "),
    ],
)
def test_a_bad_start_names_its_field(given: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        request(**{"runbook": "lab/restore-orders", "reason": "because"} | given)
    assert caught.value.message.startswith(field)
