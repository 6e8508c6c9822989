"""What single clients do with an answer, for those that can't be had where these tests run.

Each rule is how the client reads, written down from its source or from what its users met,
and held against the answers of one client's life.  The rule's name is its test's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from tests.e2e.requester import Reply

Life = Mapping[str, Reply]
Rule = Callable[[Life], None]

ACME_SH: Final = "acme.sh"
WIN_ACME: Final = "win-acme"
PROXMOX: Final = "proxmox"
TRAEFIK: Final = "traefik"
CERT_MANAGER: Final = "cert-manager"

RULES: Final[dict[str, Rule]] = {}
"""Client and rule → the check."""

ORDERS: Final = ("newOrder, trusted", "newOrder, to prove", "order, pending", "order, ready",
                 "finalize", "order, valid")  # fmt: skip
AUTHORIZATIONS: Final = ("authorization, granted", "authorization, wildcard",
                         "authorization, pending", "authorization, valid")  # fmt: skip


def rule(*clients: str) -> Callable[[Rule], Rule]:
    """Register a rule under each client that keeps to it."""

    def register(check: Rule) -> Rule:
        for client in clients:
            RULES[f"{client}-{check.__name__}"] = check
        return check

    return register


def by_pattern(member: str, text: str) -> list[str]:
    """Return every string that stands after *member* in a text, as a shell's grep finds them."""
    return re.findall(rf'"{member}" *: *"([^"]*)"', text)


def text_of(reply: Reply) -> str:
    """Return a body as the shell has it: one line."""
    return reply.body.decode().replace("\n", " ")


# ------------------------------------------------------------------------------ acme.sh


@rule(ACME_SH, WIN_ACME, PROXMOX, TRAEFIK, CERT_MANAGER)
def a_nonce_stands_once_and_holds_no_comma(life: Life) -> None:
    """acme.sh cuts the header at a comma; two of them would be folded into one."""
    for what, reply in life.items():
        assert len(reply.all("Replay-Nonce")) == 1, what
        assert re.fullmatch(r"[A-Za-z0-9_-]+", reply.nonce), what


@rule(ACME_SH, WIN_ACME)
def a_nonce_comes_from_head_with_200(life: Life) -> None:
    """Both fetch nonces by HEAD; there is no body to wait for."""
    reply = life["HEAD newNonce"]
    assert (reply.status, reply.body) == (200, b"")


@rule(ACME_SH)
def directory_members_are_found_by_pattern(life: Life) -> None:
    """Each name stands once in the text, also inside ``meta``."""
    text = text_of(life["directory"])
    for member in ("newNonce", "newAccount", "newOrder", "revokeCert"):
        (found,) = by_pattern(member, text)
        assert found.startswith("https://")
    assert len(by_pattern("keyChange", text)) <= 1


@rule(ACME_SH)
def the_last_location_is_the_only_one(life: Life) -> None:
    """acme.sh takes the last Location of all header lines, redirects included."""
    for what, reply in life.items():
        assert len(reply.all("Location")) <= 1, what
        assert reply.status not in {301, 302, 303, 307, 308}, what


@rule(ACME_SH)
def the_first_status_of_an_object_is_its_own(life: Life) -> None:
    """It reads the first ``status`` that it meets."""
    for what in (*ORDERS, *AUTHORIZATIONS):
        assert by_pattern("status", text_of(life[what]))[0] == life[what].json()["status"], what


@rule(ACME_SH)
def an_order_is_read_by_pattern(life: Life) -> None:
    """``finalize`` once; ``authorizations`` is one list with no bracket within."""
    for what in ORDERS:
        text = text_of(life[what])
        assert by_pattern("finalize", text) == [life[what].json()["finalize"]]
        (listed,) = re.findall(r'"authorizations" *: *\[([^\[]*?)\]', text)
        found = [one.strip().strip('"') for one in listed.split(",")]
        assert found == life[what].json()["authorizations"]


@rule(ACME_SH)
def an_order_holds_no_other_word_of_a_status(life: Life) -> None:
    """It looks for ``ready`` and ``processing`` anywhere in the text of an order."""
    for what in ORDERS:
        document = life[what].json()
        text = text_of(life[what]).replace(f'"status": "{document["status"]}"', "")
        assert not re.search(r"\b(ready|processing|pending|invalid|valid)\b", text), what


@rule(ACME_SH)
def an_authorization_has_one_value(life: Life) -> None:
    """The name is the one ``value`` of the text; a wildcard is told by ``wildcard`` alone."""
    for what in AUTHORIZATIONS:
        text = text_of(life[what])
        assert by_pattern("value", text) == [life[what].json()["identifier"]["value"]]
        is_wildcard = bool(re.search(r'"wildcard" *: *true', text))
        assert is_wildcard == (what == "authorization, wildcard")
        assert ("wildcard" in text) == is_wildcard


@rule(ACME_SH)
def a_challenge_is_cut_out_between_braces(life: Life) -> None:
    """From the brace before its type to the next brace: token, url and status are in there."""
    for what in ("authorization, pending", "authorization, valid"):
        for challenge in life[what].json()["challenges"]:
            pattern = rf'[^{{]*"type" *: *"{challenge["type"]}"[^}}]*'
            (cut,) = re.findall(pattern, text_of(life[what]))
            assert by_pattern("token", cut) == [challenge["token"]]
            assert by_pattern("url", cut) == [challenge["url"]]
            assert by_pattern("status", cut) == [challenge["status"]]


@rule(ACME_SH)
def a_certificate_is_found_by_pattern(life: Life) -> None:
    """``certificate`` once in a valid order, and nowhere before."""
    for what in ORDERS:
        document = life[what].json()
        found = by_pattern("certificate", text_of(life[what]))
        assert found == ([document["certificate"]] if document["status"] == "valid" else []), what


@rule(ACME_SH, WIN_ACME)
def retry_after_is_a_small_whole_number(life: Life) -> None:
    """acme.sh counts with it; a date would be taken for a number."""
    for what, reply in life.items():
        for value in reply.all("Retry-After"):
            assert re.fullmatch(r"[1-9]\d{0,3}", value), what


@rule(ACME_SH)
def a_problem_is_read_by_pattern(life: Life) -> None:
    """``detail`` holds no quote, or the pattern ends in the middle of it."""
    for what in ("finalize, too early", "revokeCert again", "deactivated"):
        document = life[what].json()
        assert by_pattern("detail", text_of(life[what]))[0] == document["detail"]


# ------------------------------------------------------------------------------ win-acme


@rule(WIN_ACME, TRAEFIK, CERT_MANAGER)
def an_account_has_its_location_new_or_known(life: Life) -> None:
    """201 the first time, 200 afterwards, and each time the URL that becomes the ``kid``."""
    new, known = life["newAccount"], life["newAccount again"]
    assert (new.status, known.status) == (201, 200)
    assert new.one("Location") == known.one("Location")


@rule(WIN_ACME)
def directory_meta_is_typed(life: Life) -> None:
    """It is read into a class: a boolean, strings, a list of strings, a table of strings."""
    document = life["directory"].json()
    meta = document["meta"]
    assert isinstance(meta["externalAccountRequired"], bool)
    assert all(isinstance(one, str) for one in meta["caaIdentities"])
    assert all(isinstance(one, str) for one in meta.get("profiles", {}).values())
    urls = [value for name, value in document.items() if name != "meta"]
    assert all(isinstance(url, str) and url.startswith("https://") for url in urls)


@rule(WIN_ACME, CERT_MANAGER)
def times_are_rfc_3339_or_absent(life: Life) -> None:
    """An empty string or ``null`` is an error of the reader's."""

    def check(document: Any) -> None:
        if isinstance(document, dict):
            for name, value in document.items():
                if name in {"expires", "notBefore", "notAfter", "validated"}:
                    assert datetime.fromisoformat(value).tzinfo is not None
                check(value)
        elif isinstance(document, list):
            for value in document:
                check(value)

    for reply in life.values():
        if reply.body[:1] == b"{":
            check(json.loads(reply.body))


@rule(WIN_ACME)
def an_identifier_is_a_type_and_a_value(life: Life) -> None:
    """It compares whole identifiers with those that it asked for."""
    for what in ORDERS:
        for identifier in life[what].json()["identifiers"]:
            assert sorted(identifier) == ["type", "value"]


@rule(WIN_ACME, TRAEFIK)
def a_challenge_is_read_again_at_its_own_url(life: Life) -> None:
    """It polls the challenge's URL, and finds the object that the authorization showed."""
    shown = life["authorization, pending"].json()["challenges"]
    assert life["challenge, read"].json() in shown
    again = life["challenge, answered again"]
    assert again.status == 200
    assert again.json()["url"] == life["challenge, read"].json()["url"]


# ------------------------------------------------------------------------------ Proxmox VE


@rule(PROXMOX, CERT_MANAGER)
def a_new_order_is_exactly_201_with_its_location(life: Life) -> None:
    """Any other status is an error, and so is an order without a URL."""
    for what in ("newOrder, trusted", "newOrder, to prove"):
        assert life[what].status == 201
        assert life[what].one("Location").startswith("https://")


@rule(PROXMOX)
def a_new_account_is_exactly_201(life: Life) -> None:
    """It has no other way to a new account."""
    assert life["newAccount"].status == 201
    assert life["newAccount"].one("Location")


@rule(PROXMOX)
def a_nonce_comes_from_get_with_success(life: Life) -> None:
    """It fetches nonces by GET, and reads the header of any success."""
    assert 200 <= life["GET newNonce"].status < 300


@rule(PROXMOX, CERT_MANAGER)
def finalizing_is_exactly_200(life: Life) -> None:
    """201 or 202 would be an error."""
    assert life["finalize"].status == 200


@rule(PROXMOX, WIN_ACME, CERT_MANAGER)
def revoking_is_exactly_200(life: Life) -> None:
    """An empty answer, and 200."""
    assert (life["revokeCert"].status, life["revokeCert"].body) == (200, b"")


@rule(PROXMOX)
def everything_is_https(life: Life) -> None:
    """Its user agent refuses every other scheme."""
    for what, reply in life.items():
        assert not re.search(rb'"http://[^"]*/acme/', reply.body), what
        for value in reply.all("Location"):
            assert value.startswith("https://"), what


# ------------------------------------------------------------------------------ Traefik


@rule(TRAEFIK)
def a_challenge_links_up_to_its_authorization(life: Life) -> None:
    """Without it lego polls an empty URL."""
    (authorization,) = life["newOrder, to prove"].json()["authorizations"]
    for what in ("challenge, read", "challenge, answered again"):
        assert f'<{authorization}>;rel="up"' in life[what].all("Link")


@rule(TRAEFIK)
def an_order_repeats_the_names_as_they_were_asked_for(life: Life) -> None:
    """Lego compares them one by one, and takes the nth authorization for the nth name."""
    for what in ("newOrder, trusted", "newOrder, to prove"):
        order = life[what].json()
        assert len(order["identifiers"]) == len(order["authorizations"])
    asked = [one["value"] for one in life["newOrder, trusted"].json()["identifiers"]]
    assert asked[1] == f"*.{asked[1].removeprefix('*.')}"
    granted = life["authorization, granted"].json()["identifier"]["value"]
    assert granted == asked[0]


@rule(TRAEFIK)
def a_problem_has_its_type_and_media_type(life: Life) -> None:
    """Lego repeats a request only for ``badNonce``, which it knows by the type."""
    for what in ("finalize, too early", "revokeCert again", "deactivated"):
        assert life[what].one("Content-Type") == "application/problem+json"
        assert life[what].json()["type"].startswith("urn:ietf:params:acme:error:")
        assert isinstance(life[what].json()["status"], int)


@rule(TRAEFIK)
def every_link_leads_back_to_us(life: Life) -> None:
    """A foreign ``alternate`` would be asked for with this account's key."""
    host = life["directory"].json()["newOrder"].split("/")[2]
    for what, reply in life.items():
        for link in reply.all("Link"):
            assert link.split("/")[2] == host, what


# ------------------------------------------------------------------------------ cert-manager


@rule(CERT_MANAGER)
def finalizing_names_the_order_in_its_location(life: Life) -> None:
    """Go's client waits on that URL and knows no other."""
    assert life["finalize"].one("Location") == life["newOrder, to prove"].one("Location")


@rule(CERT_MANAGER)
def a_finalized_order_is_never_ready(life: Life) -> None:
    """Go's client takes ``ready`` for an end, and fails."""
    assert life["finalize"].json()["status"] in {"processing", "valid", "invalid"}


@rule(CERT_MANAGER)
def a_link_is_split_at_semicolons(life: Life) -> None:
    """One link a line, ``<URL>;rel="word"``."""
    for what, reply in life.items():
        for link in reply.all("Link"):
            assert re.fullmatch(r'<https://[^<>;, ]+>;rel="[a-z]+"', link), what


@rule(CERT_MANAGER)
def every_block_of_a_chain_is_a_certificate(life: Life) -> None:
    """Anything else between the blocks is an error."""
    text = life["certificate"].body.decode()
    assert set(re.findall(r"-----BEGIN ([^-]+)-----", text)) == {"CERTIFICATE"}
    assert re.sub(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n", "", text) == ""
