"""Control messages and their answers, word for word."""

import json
from typing import Any

import pytest

from ingestion.simulator.control import Subscriptions, TooManyStreams

METHODS = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"


@pytest.fixture
def changes() -> list[tuple[list[str], list[str]]]:
    return []


@pytest.fixture
def subscriptions(changes: list[tuple[list[str], list[str]]]) -> Subscriptions:
    return Subscriptions(limit=3, changed=lambda new, left: changes.append((new, left)))


def asked(subscriptions: Subscriptions, **request: Any) -> Any:
    return json.loads(subscriptions.answer(json.dumps(request)))


def test_the_answer_has_no_spaces(subscriptions: Subscriptions) -> None:
    assert subscriptions.answer('{"method":"SUBSCRIBE","params":["a"],"id":1}') == '{"result":null,"id":1}'


def test_subscriptions_are_listed_in_their_order(subscriptions: Subscriptions) -> None:
    asked(subscriptions, method="SUBSCRIBE", params=["b", "a"], id=1)
    assert asked(subscriptions, method="LIST_SUBSCRIPTIONS", id=3) == {"result": ["b", "a"], "id": 3}


def test_a_stream_is_subscribed_once(subscriptions: Subscriptions, changes: list[Any]) -> None:
    for _ in range(2):
        asked(subscriptions, method="SUBSCRIBE", params=["a", "a"])
    assert changes == [(["a"], []), ([], [])]


def test_what_was_not_subscribed_cannot_be_left(subscriptions: Subscriptions, changes: list[Any]) -> None:
    asked(subscriptions, method="SUBSCRIBE", params=["a"])
    assert asked(subscriptions, method="UNSUBSCRIBE", params=["a", "b"], id=2) == {"result": None, "id": 2}
    assert changes[-1] == ([], ["a"])


def test_the_framing_is_a_property(subscriptions: Subscriptions) -> None:
    assert asked(subscriptions, method="SET_PROPERTY", params=["combined", True], id=5) == {"result": None, "id": 5}
    assert asked(subscriptions, method="GET_PROPERTY", params=["combined"], id=2) == {"result": True, "id": 2}


@pytest.mark.parametrize("number", [0, -(2**63), 2**63 - 1, "abc123", None])
def test_an_id_comes_back(subscriptions: Subscriptions, number: object) -> None:
    assert asked(subscriptions, method="LIST_SUBSCRIPTIONS", id=number)["id"] == number


@pytest.mark.parametrize("number", [2**63, "a" * 37, "a b", 1.5, True, [1]])
def test_another_id_is_an_invalid_request(subscriptions: Subscriptions, number: object) -> None:
    assert asked(subscriptions, method="LIST_SUBSCRIPTIONS", id=number)["code"] == 2


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"method":"SET_PROPERTY","params":["x",true],"id":9}', {"code": 0, "msg": "Unknown property", "id": 9}),
        (
            '{"method":"SET_PROPERTY","params":["combined","true"],"id":9}',
            {"code": 1, "msg": "Invalid value type: expected Boolean"},
        ),
        (
            '{"method":"GET_PROPERTY","params":["combined",1]}',
            {"code": 2, "msg": "Invalid request: too many parameters"},
        ),
        (
            '{"method":"GET_PROPERTY","params":[1]}',
            {"code": 2, "msg": "Invalid request: property name must be a string"},
        ),
        (
            '{"method":"SUBSCRIBES","id":1}',
            {
                "code": 2,
                "msg": f"Invalid request: unknown variant `SUBSCRIBES`, expected one of {METHODS} at line 1 column 22",
            },
        ),
        ('{"id":1}', {"code": 2, "msg": "Invalid request: missing field `method` at line 1 column 8"}),
        ('{"method":', {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 11"}),
        ("", {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}),
    ],
)
def test_a_wrong_request_is_answered_with_its_error(subscriptions: Subscriptions, text: str, answer: object) -> None:
    assert json.loads(subscriptions.answer(text)) == answer


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        '"SUBSCRIBE"',
        "[" * 100_000,
        '{"method":["SUBSCRIBE"]}',
        '{"method":"SUBSCRIBE","params":{}}',
        '{"method":"SUBSCRIBE","params":[1]}',
        '{"method":"SET_PROPERTY","params":[]}',
    ],
)
def test_nonsense_is_answered_with_an_error(subscriptions: Subscriptions, text: str) -> None:
    assert json.loads(subscriptions.answer(text))["code"] in (2, 3)


def test_more_streams_than_a_connection_may_have(subscriptions: Subscriptions) -> None:
    with pytest.raises(TooManyStreams):
        asked(subscriptions, method="SUBSCRIBE", params=["a", "b", "c", "d"])
