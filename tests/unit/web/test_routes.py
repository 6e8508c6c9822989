"""Where commands are in the API: in the words of the command line, and with checked arguments."""

import inspect

import pytest

from broker.web.operator import COMMANDS, OperationError, Operations
from broker.web.routes import REASON, body_arguments, query_arguments, route_of, routes


@pytest.mark.parametrize(
    ("command", "method", "path"),
    [
        ("status", "GET", "/v1/status"),
        ("order_list", "GET", "/v1/order/list"),
        ("order_retry", "POST", "/v1/order/retry"),
        ("ca_rotate_activate", "POST", "/v1/ca/rotate-activate"),
        ("policy_explain", "POST", "/v1/policy/explain"),
        ("cert_renewal", "GET", "/v1/cert/renewal"),
        ("cert_renewal_ask", "POST", "/v1/cert/renewal-ask"),
        ("renew", "POST", "/v1/renew"),
        ("renew_progress", "POST", "/v1/renew/progress"),
    ],
)
def test_path_is_in_the_words_of_the_command_line(command: str, method: str, path: str) -> None:
    """What changes nothing and takes words alone is a GET."""
    route = route_of(command)
    assert (route.method, route.path) == (method, path)


def test_every_command_has_a_path_of_its_own() -> None:
    """No two meet."""
    found = [(route.method, route.path) for route in routes()]
    assert len(set(found)) == len(found) == len(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_argument_has_the_name_of_the_reason(command: str) -> None:
    """It stands beside the arguments."""
    assert REASON not in inspect.signature(getattr(Operations, command)).parameters


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_changes_something_is_no_get(command: str) -> None:
    """A link, an image or a cache would do it again."""
    route = route_of(command)
    assert not (route.is_changing and route.method == "GET")


def test_query_gives_values_of_their_types() -> None:
    """A limit is a number."""
    route = route_of("order_list")
    given = query_arguments(route, {"limit": "5", "community": "web"}, 2)
    assert given == {"limit": 5, "community": "web"}


@pytest.mark.parametrize(
    ("query", "count", "words"),
    [
        ({"limit": "five"}, 1, "argument 'limit' is no integer"),
        ({"comunity": "web"}, 1, "no argument 'comunity'"),
        ({"limit": "5"}, 2, "twice"),
        ({"actor": "operator:root"}, 1, "no argument 'actor'"),
        ({"reason": "because"}, 1, "no argument 'reason'"),
    ],
    ids=["type", "unknown", "twice", "actor", "reason"],
)
def test_query_that_does_not_fit_is_refused(query: dict[str, str], count: int, words: str) -> None:
    """With a sentence."""
    with pytest.raises(OperationError, match=words):
        query_arguments(route_of("order_list"), query, count)


def test_body_gives_arguments_beside_the_reason() -> None:
    """The reason is none of them."""
    body = {"certificate": "c1", "code": 4, "reason": "key lost"}
    assert body_arguments(route_of("cert_revoke"), body) == {"certificate": "c1", "code": 4}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "'certificate' of /v1/cert/revoke is missing"),
        ({"certificate": 5}, "'certificate' is no string"),
        ({"certificate": "c1", "code": "4"}, "'code' is no integer"),
        ({"certificate": "c1", "code": True}, "'code' is no integer"),
        ({"certificate": "c1", "force": True}, "no argument 'force'"),
        ({"certificate": "c1", "actor": {"name": "operator:root"}}, "no argument 'actor'"),
        ({"certificate": "c1", "self": 1}, "no argument 'self'"),
    ],
    ids=["missing", "number", "text", "truth", "unknown", "actor", "self"],
)
def test_body_that_does_not_fit_is_refused(body: dict[str, object], words: str) -> None:
    """Before the command meets it."""
    with pytest.raises(OperationError, match=words):
        body_arguments(route_of("cert_revoke"), body)
