"""Which URL was signed, which account is named, and that only the configured URL counts."""

import json
from collections.abc import Callable

import pytest

from tests.e2e.bad_requests import DROP, READABLE, Bad, Draft, Holdings, names_of, refuse_then_pass
from tests.e2e.requester import JOSE, check_refusal, sealed, target_of

pytestmark = pytest.mark.e2e

SIGNED = ("account", "order", "new-order", "new-account", "finalize", "revoke-cert")
"""Resources at which the signed URL is tried."""


def url(change: Callable[[str], object]) -> Callable[[Draft], None]:
    """Return what signs another URL than that of the request."""
    return lambda draft: draft.header(url=change(draft.url))


def header(**changes: object) -> Callable[[Draft], None]:
    """Return what replaces members of the protected header."""
    return lambda draft: draft.header(**changes)


def kid(change: Callable[[str], object]) -> Callable[[Draft], None]:
    """Return what names another account than the owner's."""
    return lambda draft: draft.header(kid=change(draft.protected["kid"]))


def target(change: Callable[[str], str]) -> Callable[[Draft], None]:
    """Return what sends the request to another place than it was signed for."""

    def spoil(draft: Draft) -> None:
        draft.target = change(draft.target)

    return spoil


def with_host(name: str, *more: tuple[str, str]) -> Callable[[Draft], None]:
    """Return what signs for another host and claims it in the headers as well."""

    def spoil(draft: Draft) -> None:
        draft.header(url=f"https://{name}{draft.target}")
        draft.headers += [("Host", name), *more]

    return spoil


def of_another_account(draft: Draft) -> None:
    """Name an account that is there, and sign with the owner's key."""
    draft.header(kid=draft.holdings.door.account().kid)


def of_another_community(draft: Draft) -> None:
    """Name an account of the other community, signed by its key."""
    other = draft.holdings.door.trusted("other")
    draft.key = other.key
    draft.header(kid=other.kid)


def respelled_for_this_community(draft: Draft) -> None:
    """Name an account of the other community by its id, under this one's path."""
    of_another_community(draft)
    draft.header(kid=draft.protected["kid"].replace("/other/", "/default/"))


def at_another_community(draft: Draft) -> None:
    """Take the request to the other community's resource, signed for that."""
    draft.target = draft.target.replace("/default/", "/other/")
    draft.header(url=draft.url.replace("/default/", "/other/"))


def swap(old: str, new: str) -> Callable[[str], str]:
    """Return what replaces text that is there."""

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


ELSEWHERE: list[tuple[str, Callable[[str], object]]] = [
    ("host", swap("127.0.0.1", "127.0.0.2")),
    ("host by name", swap("127.0.0.1", "localhost")),
    ("host of evil", swap("127.0.0.1", "evil.example")),
    ("port", lambda text: text.replace(text.split("/")[2], "127.0.0.1:443")),
    ("no port", lambda text: text.replace(text.split("/")[2], "127.0.0.1")),
    ("scheme", swap("https:", "http:")),
    ("scheme in capitals", swap("https:", "HTTPS:")),
    ("user", swap("https://", "https://user@")),
    ("trailing slash", lambda text: text + "/"),
    ("query", lambda text: text + "?a=b"),
    ("empty query", lambda text: text + "?"),
    ("fragment", lambda text: text + "#a"),
    ("case of the path", swap("/acme/", "/ACME/")),
    ("two slashes", swap("/acme/", "//acme/")),
    ("dots", swap("/acme/", "/acme/../acme/")),
    ("percent", swap("/acme/", "/%61cme/")),
    ("community", swap("/default/", "/other/")),
    ("resource", lambda text: text.rpartition("/")[0] + "/new-nonce"),
    ("path alone", target_of),
    ("no scheme", swap("https:", "")),
]

URLS = [
    *(Bad(f"url: {name}", where, url(change), "unauthorized", "was signed for url .*expected 'http",
          status=403) for where in ("account", "new-account") for name, change in ELSEWHERE),
    *(Bad("url of another resource", where, url(swap("/default/", "/default/x-")), "unauthorized",
          "was signed for url", status=403) for where in SIGNED[1:3] + SIGNED[4:]),
    *(Bad(f"url {name}", where, header(url=value), "malformed", "no url")
      for where in ("account", "new-account")
      for name, value in (("missing", DROP), ("null", None), ("empty", ""), ("a list", ["x"]),
                          ("of 3000 characters", "https://127.0.0.1/" + "a" * 3000),
                          ("with a space", "https://127.0.0.1/ "),
                          ("with a line break", "https://127.0.0.1/\r\nx: y"),
                          ("not ASCII", "https://127.0.0.1/ä"))),
    Bad("sent with a query", "account", target(lambda t: t + "?a=b"), "unauthorized", "signed for",
        status=403),
    Bad("sent with percent signs", "account", target(swap("/acme/", "/%61cme/")), "unauthorized",
        "signed for", status=403),
    Bad("sent to another host's URL", "account", target(lambda t: f"https://evil.example{t}"),
        "unauthorized", "signed for", status=403),
    Bad("sent with two slashes", "account", target(lambda t: "/" + t), "malformed", "no such",
        status=404),
    Bad("sent with a slash behind", "account", target(lambda t: t + "/"), "malformed", "no such",
        status=404),
    Bad("host forged", "account", with_host("evil.example"), "unauthorized", "signed for",
        status=403),
    Bad("forwarded host forged", "account",
        with_host("evil.example", ("X-Forwarded-Host", "evil.example"),
                  ("X-Forwarded-Proto", "https"), ("Forwarded", "host=evil.example;proto=https"),
                  ("X-Original-URL", "/acme/default/new-order"), ("X-Rewrite-URL", "/")),
        "unauthorized", "expected 'https://127.0.0.1", status=403),
]  # fmt: skip
"""RFC 8555 §6.4."""

SPELLINGS = [each for each in ELSEWHERE if each[0] not in {"resource", "community"}]

KIDS = [
    *(Bad(f"kid: {name}", "account", kid(change), "accountDoesNotExist", "no account URL")
      for name, change in SPELLINGS),
    Bad("kid: other community", "account", kid(swap("/default/", "/other/")),
        "accountDoesNotExist", "no account URL of community 'default'"),
    Bad("kid: id alone", "account", kid(lambda text: text.rpartition("/")[2]),
        "accountDoesNotExist", "no account URL"),
    Bad("kid: no id", "account", kid(lambda text: text.rpartition("/")[0] + "/"),
        "accountDoesNotExist", "no account URL"),
    Bad("kid: id of 65 characters", "account",
        kid(lambda text: text.rpartition("/")[0] + "/" + "a" * 65), "accountDoesNotExist",
        "no account URL"),
    Bad("kid: id and more", "account", kid(lambda text: text + "/orders"), "accountDoesNotExist",
        "no account URL"),
    Bad("kid: id in capitals", "account",
        kid(lambda text: text.rpartition("/")[0] + "/" + text.rpartition("/")[2].upper()),
        "accountDoesNotExist", "no such account"),
    Bad("kid: id with a wildcard", "account", kid(lambda text: text[:-1] + "%"),
        "accountDoesNotExist", "no account URL"),
    Bad("kid: nobody's", "account", kid(lambda text: text[:-32] + "0" * 32),
        "accountDoesNotExist", "no such account"),
    Bad("kid: an order's URL", "account", lambda d: d.header(kid=d.holdings.urls["order"]),
        "accountDoesNotExist", "no account URL"),
    *(Bad("kid: another account's", where, of_another_account, "malformed", "does not verify")
      for where in (*READABLE, "new-order", "finalize", "revoke-cert")),
    *(Bad("kid: an account of the other community", where, of_another_community,
          "accountDoesNotExist", "no account URL of community 'default'")
      for where in (*READABLE, "new-order", "finalize", "revoke-cert")),
    *(Bad("kid: id of an account of the other community", where, respelled_for_this_community,
          "accountDoesNotExist", "no such account here")
      for where in (*READABLE, "new-order", "finalize", "revoke-cert")),
    *(Bad("taken to the other community", where, at_another_community, "accountDoesNotExist",
          "no account URL of community 'other'")
      for where in (*READABLE, "new-order", "finalize", "revoke-cert")),
    *(Bad(f"kid {name}", "account", header(kid=value), "malformed",
          "no kid")
      for name, value in (("empty", ""), ("a number", 1), ("of 3000 characters", "h" * 3000),
                          ("with a line break", "https://127.0.0.1/\n"))),
]  # fmt: skip
"""RFC 8555 §6.2: the account URL as it was handed out, equal as text."""

TABLE = [*URLS, *KIDS]


@pytest.mark.parametrize("bad", TABLE, ids=names_of(TABLE))
def test_url_or_account_is_refused_and_the_right_one_passes(holdings: Holdings, bad: Bad) -> None:
    """What was signed for one place by one account is good there and for it alone."""
    refuse_then_pass(holdings, bad)


def test_the_table_is_long_enough() -> None:
    """At least 80 URLs and accounts are tried."""
    assert len(TABLE) >= 80


@pytest.mark.parametrize(
    "forged",
    [
        [("Host", "evil.example")],
        [("Host", "evil.example:443")],
        [("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "http")],
        [("Forwarded", "host=evil.example;proto=http"), ("X-Forwarded-Prefix", "/evil")],
    ],
    ids=["Host", "Host and port", "X-Forwarded", "Forwarded"],
)
def test_headers_that_name_a_host_change_nothing(
    holdings: Holdings, forged: list[tuple[str, str]]
) -> None:
    """A good request passes under them, and every URL in the answers is the configured one."""
    wire, origin = holdings.door.wire, holdings.door.penstock.external_url
    directory = wire.send("GET", "/acme/directory", None, forged).json()
    urls = [value for value in directory.values() if isinstance(value, str)]
    assert len(urls) >= 4
    assert all(value.startswith(f"{origin}/acme/default/") for value in urls)
    for where in ("account", "new-order", "order", "authz", "challenge"):
        draft = holdings.draft(where)
        draft.headers += forged
        reply = holdings.send(draft)
        assert reply.status in {200, 201}
        everything = json.dumps([reply.headers, reply.body.decode()])
        assert "evil" not in everything


def test_deactivated_account_is_refused_everywhere(holdings: Holdings) -> None:
    """RFC 8555 §7.3.6: 401 unauthorized, at every resource and for good, by key and by kid."""
    door = holdings.door
    own = Holdings.of(door)
    assert own.owner.post(own.urls["account"]).status == 200
    assert own.owner.post(own.urls["account"], {"status": "deactivated"}).status == 200
    payloads = {
        "new-order": {"identifiers": [{"type": "dns", "value": "h.farm.example.test"}]},
        "finalize": {"csr": "AAAA"},
        "revoke-cert": {"certificate": "AAAA"},
        "new-account": {"termsOfServiceAgreed": True},
    }
    everywhere = (*READABLE, *payloads, "directory", "new-nonce")
    for where in everywhere:
        url = own.urls[where]
        by_key = where == "new-account"
        reply = own.owner.post(url, payloads.get(where), by_key=by_key)
        check_refusal(reply, "unauthorized", 401, "this account is deactivated")
    for payload in ({"status": "valid"}, {"contact": ["mailto:a@example.com"]}):
        reply = own.owner.post(own.urls["account"], payload)
        check_refusal(reply, "unauthorized", 401, "this account is deactivated")
    # Nobody else is touched, and the same key may start anew in another community.
    assert holdings.owner.post(holdings.urls["account"]).status == 200
    assert door.account("other", key=own.owner.key).kid != own.owner.kid


def test_signed_request_is_good_at_its_own_url_alone(holdings: Holdings) -> None:
    """One signed body is taken to every resource there is: it passes at its own."""
    owner = holdings.owner
    for where, url in holdings.urls.items():
        if where == "account":
            continue
        body = sealed(owner.header(holdings.urls["account"]), b"", owner.key)
        reply = holdings.door.wire.send("POST", target_of(url), body, [("Content-Type", JOSE)])
        kind, status = ("malformed", 400) if where == "new-account" else ("unauthorized", 403)
        check_refusal(reply, kind, status, "signed for url|expected jwk")
    body = sealed(owner.header(holdings.urls["account"]), b"", owner.key)
    own = target_of(holdings.urls["account"])
    assert holdings.door.wire.send("POST", own, body, [("Content-Type", JOSE)]).status == 200
