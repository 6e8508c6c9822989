"""Reading a peer's object member by member."""

from typing import Any

import pytest

from broker.protocol.members import (
    MAX_LIST_ITEMS,
    Members,
    ProtocolError,
    read_flag,
    read_list,
    read_object,
    read_text,
    read_texts_by_name,
    read_time,
    read_url,
    read_word,
)
from broker.protocol.resources import OrderStatus


@pytest.mark.parametrize("obj", [None, [], "text", 7, True], ids=repr)
def test_what_is_no_object_is_a_breach(obj: object) -> None:
    """The sentence names what was read."""
    with pytest.raises(ProtocolError, match="order: expected an object"):
        Members(obj, "order")


def test_absent_and_null_members_are_absent() -> None:
    """Servers written in Go send null for what is not there."""
    members = Members({"a": None}, "order")
    assert members.optional("a", read_text) is None
    assert members.optional("b", read_text) is None
    for name in ("a", "b"):
        with pytest.raises(ProtocolError, match=f"order.{name}: is missing"):
            members.required(name, read_text)


def test_breach_names_its_path() -> None:
    """A fault deep inside is told with the way to it."""

    def read_inner(value: Any) -> str:
        return Members(value, "inner").required("word", read_text)

    members = Members({"list": [{"word": 7}]}, "outer")
    with pytest.raises(ProtocolError, match=r"outer.list: inner.word: expected a string"):
        members.optional("list", read_list(read_inner))


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        pytest.param(read_text, "a", 1, id="string"),
        pytest.param(read_flag, True, "true", id="boolean as string"),
        pytest.param(read_flag, False, 0, id="boolean as number"),
        pytest.param(read_url, "https://a.example/x", "a.example", id="URL without scheme"),
        pytest.param(read_url, "http://a.example", "file:///etc/passwd", id="file URL"),
        pytest.param(read_url, "http://a.example", "javascript:alert(1)", id="script URL"),
        pytest.param(read_url, "http://a.example", "https://a.example/ x", id="URL with space"),
        pytest.param(read_url, "http://a.example", "https://a.example/\r\nX: y", id="header"),
        pytest.param(read_url, "http://a.example", "https://" + "a" * 2048, id="long URL"),
        pytest.param(read_url, "http://a.example", ["https://a"], id="URL in a list"),
        pytest.param(read_time, "2026-01-01T00:00:00Z", "", id="empty time"),
        pytest.param(read_time, "2026-01-01T00:00:00Z", 1769860800, id="time as number"),
        pytest.param(read_word(OrderStatus), "ready", "Ready", id="word in another case"),
        pytest.param(read_word(OrderStatus), "ready", 1, id="word a number"),
        pytest.param(read_list(read_text), ["a"], "a", id="list a string"),
        pytest.param(read_list(read_text), [], ["a", 1], id="list of mixed types"),
        pytest.param(read_list(read_text), [], ["a"] * (MAX_LIST_ITEMS + 1), id="long list"),
        pytest.param(read_object, {}, [], id="object a list"),
        pytest.param(read_texts_by_name, {"a": "b"}, {"a": 1}, id="texts a number"),
        pytest.param(read_texts_by_name, {}, [], id="texts a list"),
    ],
)
def test_types_are_strict(read: Any, good: object, bad: object) -> None:
    """A member of another type is a breach; of its own it is read."""
    Members({"a": good}, "order").required("a", read)
    with pytest.raises(ProtocolError, match=r"order\.a: "):
        Members({"a": bad}, "order").required("a", read)
