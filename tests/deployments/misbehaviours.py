"""What a hostile or broken CA may do, as a table: the case, how it ends, and what is said of it.

A case ends in one of four ways.  Which one is part of the table, since "nothing bad came of it"
is true of a broker that does nothing at all.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.deployments.hostile import CAP_DAYS, ITSELF, NAME, PROVEN, SOON, STRANGER
from tests.fakes.hostile_ca import (
    FOREVER,
    AfterFinalize,
    Behaviour,
    Chain,
    ChallengeResult,
    Fault,
    NotAfter,
    Resource,
    Script,
)
from tests.peers import authority

DAY_SECONDS: Final = 86_400
YEARS_SECONDS: Final = 10 * 365 * DAY_SECONDS
ELSEWHERE: Final = f"https://{STRANGER}/somewhere"
PEM: Final = "application/pem-certificate-chain"


class Ending(enum.StrEnum):
    """How the order of a case ends."""

    VALID = "valid"
    """The fault passes, or is none: the order is valid, by no more orders than are due."""

    WITHHELD = "withheld"
    """A certificate came and breaks a rule: it is kept back, revoked, its upstream suspended."""

    REFUSED = "refused"
    """The order is invalid, and the client reads why."""

    WAITING = "waiting"
    """The order stays in processing and ``order show`` tells why; mended, it becomes valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way in which a CA misbehaves."""

    id: str
    script: Script
    ending: Ending
    says: str = ""
    """Pattern of what the client reads in the order's error, or the operator in ``order show``."""

    problem: str = "serverInternal"
    """Type of the order's error, where it ends in one."""

    names: tuple[str, ...] = (NAME,)
    members: Callable[[], Mapping[str, Any]] = dict
    """Further members of newOrder."""

    most_calls: int = 25
    """Most requests that the CA may see until the order ends or has been watched for a while."""

    most_orders: int = 1
    """Most orders that the CA may have been asked for with success."""

    quiet_after: Resource | None = None
    """The resource whose first request was told to come back later."""

    quiet_seconds: float = 0.0
    """How long no request may follow it."""

    is_mended: bool = True
    """Whether it is tried that the order becomes valid; not where it sleeps for a day."""

    @property
    def is_late(self) -> bool:
        """Return whether finalize comes when the broker has to read the CA's order before."""
        return any(fault.resource is Resource.ORDER for fault in self.script.faults)


def proven(**behaviour: Any) -> Script:
    """Return a CA that asks for no proof, and behaves as said about every order."""
    return Script(standing=dataclasses.replace(PROVEN, **behaviour))


def faulty(*faults: Fault, **behaviour: Any) -> Script:
    """Return a CA that asks for no proof, and lets some requests go wrong."""
    return Script(standing=dataclasses.replace(PROVEN, **behaviour), faults=list(faults))


def unproven(*faults: Fault, **behaviour: Any) -> Script:
    """Return a CA that asks for proof and never looks at it."""
    return Script(standing=Behaviour(**behaviour), faults=list(faults))


def order_document(status: str, **members: Any) -> str:
    """Return the JSON of an order for the name that is asked for."""
    document = {
        "status": status,
        "expires": "2099-01-01T00:00:00Z",
        "identifiers": [{"type": "dns", "value": NAME}],
        "authorizations": [],
        "finalize": f"https://{ITSELF}/finalize/nothing",
    }
    return json.dumps(document | members)


def answered(
    resource: Resource,
    body: str,
    *,
    status: int | None = None,
    content_type: str = "application/json",
    times: int = FOREVER,
    skip: int = 0,
    processed: bool = True,
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """Return the fault of an answer with the wrong body."""
    return Fault(
        resource,
        skip=skip,
        times=times,
        processed=processed,
        status=status,
        body=body,
        content_type=content_type,
        headers=headers or {},
    )


DIRECTORY_FORGOTTEN: Final = dataclasses.replace(
    Fault.redirect(Resource.NEW_ORDER, ELSEWHERE), times=1
)
"""After an answer that breaks the protocol the broker asks for the directory anew."""


def directory(**overrides: str) -> Script:
    """Return a CA whose directory leads elsewhere."""
    return Script(
        standing=PROVEN, faults=[DIRECTORY_FORGOTTEN], directory_overrides=dict(overrides)
    )


def asking_for(days: int) -> Callable[[], Mapping[str, Any]]:
    """Return the member of newOrder that asks for an end in *days* from now."""

    def members() -> Mapping[str, Any]:
        end = authority.real_now() + datetime.timedelta(days=days)
        return {"notAfter": end.strftime("%Y-%m-%dT%H:%M:%SZ")}

    return members


# ------------------------------------------------------------------- certificates that lie

SERVER_AUTH, CLIENT_AUTH, ANY_USAGE = (
    "1.3.6.1.5.5.7.3.1",
    "1.3.6.1.5.5.7.3.2",
    "2.5.29.37.0",
)

_WRONG: Final[Mapping[str, tuple[Script, str]]] = {
    "another-key": (proven(other_key=True), "certifies another key"),
    "extra-name": (proven(extra_names=("evil.example.test",)), "names evil.example.test beyond"),
    "extra-wildcard": (proven(extra_names=("*.example.test",)), r"names \*.example.test beyond"),
    "one-name-missing": (proven(missing_names=(f"b.{NAME}",)), "lacks b.one-name-missing"),
    "no-names-at-all": (proven(missing_names=(NAME, f"b.{NAME}")), "lacks b?.*no-names-at-all"),
    "ca-certificate": (proven(is_ca=True), "CA:TRUE"),
    "client-auth-too": (
        proven(extended_key_usages=(SERVER_AUTH, CLIENT_AUTH)),
        "extended key usages client-auth",
    ),
    "any-usage": (proven(extended_key_usages=(SERVER_AUTH, ANY_USAGE)), "extended key usages"),
    "no-usage": (proven(extended_key_usages=()), "has no extended key usage"),
    "client-auth-alone": (proven(extended_key_usages=(CLIENT_AUTH,)), "extended key usages? "),
    "strange-extension": (
        proven(extra_extensions={"1.2.3.4.5": "0500"}),
        "1.2.3.4.5, which nobody agreed on",
    ),
    "must-staple": (
        proven(extra_extensions={"1.3.6.1.5.5.7.1.24": "3003020105"}),
        "1.3.6.1.5.5.7.1.24, which nobody agreed on",
    ),
    "end-ignored": (proven(not_after=NotAfter.IGNORE), f"past the {CAP_DAYS}d cap"),
    "three-minutes-too-long": (
        proven(extra_lifetime_seconds=180),
        f"past the {CAP_DAYS}d cap .* with 1m of tolerance",
    ),
    "ten-years": (proven(ends_in_seconds=YEARS_SECONDS), f"past the {CAP_DAYS}d cap"),
    "expired-already": (proven(ends_in_seconds=-3600), "before it was received"),
    "starts-tomorrow": (proven(starts_in_seconds=DAY_SECONDS), "after it was received"),
    "no-intermediate": (proven(chain=Chain.NO_INTERMEDIATE), "leads to none of its anchors"),
}

WRONG_CERTIFICATES: Final = tuple(
    Case(
        id=name,
        script=script,
        ending=Ending.WITHHELD,
        says=says,
        names=(NAME, f"b.{NAME}"),
        most_calls=8,
    )
    for name, (script, says) in _WRONG.items()
) + tuple(
    Case(
        id=name,
        script=proven(extra_lifetime_seconds=seconds),
        ending=Ending.WITHHELD,
        says="as asked for, with 1m of tolerance",
        members=asking_for(20),
        most_calls=8,
    )
    for name, seconds in (("asked-end-cut", -DAY_SECONDS), ("asked-end-stretched", DAY_SECONDS))
)

# ------------------------------------------------------------------------------ chains

NO_CHAIN: Final[Mapping[str, tuple[Script, str]]] = {
    "chain-of-strangers": (proven(self_issued=True), "issued no other"),
    "chain-with-stranger": (proven(chain=Chain.WITH_STRANGER), "issued no other"),
    "chain-with-key": (proven(chain=Chain.WITH_KEY), "other than CERTIFICATE blocks"),
    "chain-of-fifty": (proven(chain=Chain.FIFTY), "more than 10 certificates"),
    "chain-of-html": (proven(chain=Chain.HTML), "other than CERTIFICATE blocks"),
    "chain-empty": (proven(chain=Chain.EMPTY), "chain is empty"),
    "chain-of-one-newline": (proven(chain=Chain.NEWLINE), "chain is empty"),
    "chain-of-json": (
        faulty(answered(Resource.CERTIFICATE, "{}", content_type=PEM)),
        "other than CERTIFICATE blocks",
    ),
    "chain-of-noise": (
        faulty(
            answered(
                Resource.CERTIFICATE,
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                content_type=PEM,
            )
        ),
        "certificate",
    ),
}

UNUSABLE_CHAINS: Final = tuple(
    Case(id=name, script=script, ending=Ending.REFUSED, says=says, most_calls=8)
    for name, (script, says) in NO_CHAIN.items()
)

MENDED_CHAINS: Final = tuple(
    Case(id=name, script=proven(chain=chain), ending=Ending.VALID, most_calls=6)
    for name, chain in (
        ("chain-honest", Chain.HONEST),
        ("chain-upside-down", Chain.INTERMEDIATE_FIRST),
        ("chain-with-root", Chain.WITH_ROOT),
    )
)

# ------------------------------------------------------------------------------ tokens

_TOKENS: Final[Mapping[str, str]] = {
    "token-path": "../../../../../../../etc/passwd",
    "token-path-long-enough": "aaaaaaaaaaaaaaaaaaaaaaaa/../../b",
    "token-encoded-path": "aaaaaaaaaaaaaaaaaaaaaaaa%2e%2e%2fb",
    "token-quotes": 'aaaaaaaaaaaaaaaaaaaaaaaa"; drop',
    "token-newline": "aaaaaaaaaaaaaaaaaaaaaaaa\r\nX: y",
    "token-10-kb": "a" * 10_000,
    "token-short": "short",
    "token-accent": "aaaaaaaaaaaaaaaaaaaaaaaaé",
}

BAD_TOKENS: Final = tuple(
    Case(
        id=name,
        script=unproven(token=token),
        ending=Ending.WAITING,
        says="token.* is not base64url of 22 to 256 characters",
    )
    for name, token in _TOKENS.items()
)

CHALLENGES: Final = (
    Case(
        id="challenge-without-token",
        script=unproven(challenge_without_token=True),
        ending=Ending.VALID,
        most_calls=12,
    ),
    Case(
        id="challenge-unknown",
        script=unproven(challenge_types=("tls-alpn-01",)),
        ending=Ending.WAITING,
        says="no solver is configured",
    ),
    Case(
        id="challenge-fails",
        script=unproven(challenge_result=ChallengeResult.INVALID),
        ending=Ending.REFUSED,
        says="authorization of 'challenge-fails.example.test' is invalid",
        problem="unauthorized",
        most_orders=2,
    ),
    Case(
        id="challenge-fails-once",
        script=Script(
            standing=PROVEN,
            next_orders=[Behaviour(challenge_result=ChallengeResult.INVALID)],
        ),
        ending=Ending.VALID,
        most_orders=2,
    ),
)

# --------------------------------------------------------------------- addresses that mislead

_ELSEWHERE: Final[Mapping[str, tuple[Script, str]]] = {
    "new-order-elsewhere": (directory(newOrder=ELSEWHERE), "leads to another origin"),
    "new-nonce-elsewhere": (directory(newNonce=ELSEWHERE), "leads to another origin"),
    "revoke-elsewhere": (directory(revokeCert=ELSEWHERE), "leads to another origin"),
    "new-order-without-tls": (directory(newOrder=f"http://{STRANGER}/x"), "is no https URL"),
    "new-order-as-user": (
        directory(newOrder=f"https://{ITSELF}@{STRANGER}/x"),
        "user information",
    ),
    "new-order-backslash": (
        directory(newOrder=f"https://{STRANGER}\\@{ITSELF}/x"),
        "origin|backslash|no URL|no https URL",
    ),
    "new-order-a-file": (directory(newOrder="file:///etc/passwd"), "https? URL"),
    "new-order-a-metadata-page": (
        directory(newOrder="https://169.254.169.254/latest/meta-data"),
        "leads to another origin",
    ),
    "directory-redirected": (
        faulty(DIRECTORY_FORGOTTEN, Fault.redirect(Resource.DIRECTORY, ELSEWHERE)),
        "a redirect, and none is followed",
    ),
    "order-redirected": (
        faulty(Fault.redirect(Resource.ORDER, ELSEWHERE)),
        "a redirect, and none is followed",
    ),
    "new-order-redirected": (
        faulty(Fault.redirect(Resource.NEW_ORDER, ELSEWHERE)),
        "a redirect, and none is followed",
    ),
    "finalize-redirected": (
        faulty(Fault.redirect(Resource.FINALIZE, ELSEWHERE)),
        "a redirect, and none is followed",
    ),
    "certificate-redirected": (
        faulty(Fault.redirect(Resource.CERTIFICATE, ELSEWHERE)),
        "a redirect, and none is followed",
    ),
    "authorization-elsewhere": (
        faulty(
            answered(
                Resource.NEW_ORDER, order_document("pending", authorizations=[ELSEWHERE]), times=1
            ),
            answered(Resource.ORDER, order_document("pending", authorizations=[ELSEWHERE])),
        ),
        "leads to another origin",
    ),
    "finalize-elsewhere": (
        faulty(
            answered(Resource.NEW_ORDER, order_document("ready", finalize=ELSEWHERE), times=1),
            answered(Resource.ORDER, order_document("ready", finalize=ELSEWHERE)),
        ),
        "leads to another origin",
    ),
    "certificate-elsewhere": (
        faulty(
            answered(Resource.FINALIZE, order_document("valid", certificate=ELSEWHERE)),
            answered(Resource.ORDER, order_document("valid", certificate=ELSEWHERE), skip=1),
        ),
        "leads to another origin",
    ),
}

MISLEADING_ADDRESSES: Final = (
    *(
        Case(id=name, script=script, ending=Ending.WAITING, says=says)
        for name, (script, says) in _ELSEWHERE.items()
    ),
    Case(
        id="every-link-elsewhere",
        script=Script(standing=PROVEN, link_base=f"https://{STRANGER}"),
        ending=Ending.WAITING,
        says="account|leads to another origin",
        most_orders=2,
    ),
)

# ------------------------------------------------------------------------- faults that last

_LASTING: Final[Mapping[str, tuple[Script, str]]] = {
    "every-nonce-refused": (faulty(Fault.bad_nonce(times=FOREVER)), r"refused \d+ nonces in a row"),
    "no-connection": (faulty(Fault.outage()), "127.0.0.1"),
    "internal-errors": (
        faulty(Fault.refusal(Resource.NEW_ORDER, 500, "serverInternal", times=FOREVER)),
        "answered 500",
    ),
    "forbidden-by-html": (
        faulty(
            answered(
                Resource.NEW_ORDER,
                "<html>no</html>",
                status=403,
                content_type="text/html",
                processed=False,
            )
        ),
        "403 without a problem document",
    ),
    "certificate-as-html": (
        faulty(answered(Resource.CERTIFICATE, "<html>wait</html>", content_type="text/html")),
        "as text/html, expected application/pem-certificate-chain",
    ),
    "certificate-of-10-mb": (proven(chain=Chain.TEN_MEGABYTES), "more than 100000 bytes"),
    "certificate-refused": (
        faulty(Fault.refusal(Resource.CERTIFICATE, 404, "malformed", times=FOREVER)),
        "keeps back the certificate",
    ),
    "order-of-100-kb": (
        faulty(answered(Resource.ORDER, order_document("ready", x="x" * 100_000))),
        "more than 65536 bytes",
    ),
    "order-forgotten-after-finalize": (
        faulty(
            Fault.refusal(Resource.ORDER, 404, "malformed", skip=1, times=FOREVER),
            after_finalize=AfterFinalize.PROCESSING,
            polls_until_done=5,
        ),
        "no longer knows an order that it had accepted",
    ),
    "never-done": (
        proven(after_finalize=AfterFinalize.PROCESSING, polls_until_done=FOREVER),
        "still processing",
    ),
    "ready-for-ever": (
        proven(after_finalize=AfterFinalize.READY, polls_until_done=FOREVER),
        "still ready",
    ),
    "new-terms": (
        faulty(Fault.refusal(Resource.NEW_ORDER, 403, "userActionRequired", times=FOREVER)),
        "refuses our account: userActionRequired",
    ),
    "account-forgotten": (
        faulty(Fault.refusal(Resource.NEW_ORDER, 400, "accountDoesNotExist", times=FOREVER)),
        "refuses our account: accountDoesNotExist",
    ),
}

LASTING_FAULTS: Final = tuple(
    Case(id=name, script=script, ending=Ending.WAITING, says=says)
    for name, (script, says) in _LASTING.items()
)

HANGING: Final = tuple(
    Case(
        id=f"hangs-at-{name}",
        script=faulty(Fault.hanging(resource, processed=True)),
        ending=Ending.WAITING,
        most_calls=8,
    )
    for name, resource in (
        ("new-order", Resource.NEW_ORDER),
        ("finalize", Resource.FINALIZE),
        ("certificate", Resource.CERTIFICATE),
    )
)

# ------------------------------------------------------------------------- faults that pass

_NONSENSE: Final[Mapping[str, str]] = {
    "garbage": "{nonsense",
    "a-list": "[]",
    "null": "null",
    "an-empty-object": "{}",
    "a-member-twice": '{"status":"ready","status":"valid"}',
    "deep": "[" * 20_000,
    "no-number": '{"status": NaN}',
}

_PASSING: Final[Mapping[str, tuple[Script, int]]] = {
    **{
        f"new-order-{what}": (faulty(answered(Resource.NEW_ORDER, body, times=1)), 1)
        for what, body in _NONSENSE.items()
    },
    **{
        f"order-{what}": (faulty(answered(Resource.ORDER, body, times=2)), 1)
        for what, body in _NONSENSE.items()
    },
    "finalize-garbage": (faulty(answered(Resource.FINALIZE, "{nonsense", times=1)), 1),
    "certificate-garbage": (
        faulty(answered(Resource.CERTIFICATE, "nonsense", content_type=PEM, times=2)),
        1,
    ),
    "directory-garbage": (
        faulty(DIRECTORY_FORGOTTEN, answered(Resource.DIRECTORY, "{nonsense", times=2)),
        1,
    ),
    "authorization-garbage": (unproven(answered(Resource.AUTHORIZATION, "[]", times=2)), 1),
    "challenge-garbage": (unproven(answered(Resource.CHALLENGE, "[]", times=1)), 1),
    "new-order-answer-lost": (faulty(Fault.lost(Resource.NEW_ORDER)), 1),
    "new-order-never-arrived": (faulty(Fault.lost(Resource.NEW_ORDER, processed=False)), 1),
    "finalize-answer-lost": (faulty(Fault.lost(Resource.FINALIZE)), 1),
    "finalize-never-arrived": (faulty(Fault.lost(Resource.FINALIZE, processed=False)), 1),
    "certificate-answer-lost": (faulty(Fault.lost(Resource.CERTIFICATE)), 1),
    "order-answer-lost": (faulty(Fault.lost(Resource.ORDER)), 1),
    "short-outage": (faulty(Fault.outage(times=3)), 1),
    "four-nonces-refused": (faulty(Fault.bad_nonce(times=4)), 1),
    "nonce-refused-at-finalize": (faulty(Fault.bad_nonce(Resource.FINALIZE, times=4)), 1),
    "processing-for-a-while": (
        proven(after_finalize=AfterFinalize.PROCESSING, polls_until_done=3),
        1,
    ),
    "processing-without-retry-after": (
        proven(after_finalize=AfterFinalize.PROCESSING, polls_until_done=3, retry_after=None),
        1,
    ),
    "processing-retry-after-nonsense": (
        proven(after_finalize=AfterFinalize.PROCESSING, polls_until_done=3, retry_after="soon"),
        1,
    ),
    "processing-until-a-date": (
        proven(after_finalize=AfterFinalize.PROCESSING, polls_until_done=2, retry_after=SOON),
        1,
    ),
    "order-of-others-for-a-moment": (
        faulty(
            answered(
                Resource.ORDER,
                order_document("valid", identifiers=[{"type": "dns", "value": "evil.test"}]),
                times=2,
            )
        ),
        1,
    ),
    "other-chains-nonsense": (
        proven(alternates=(Chain.HTML, Chain.EMPTY, Chain.TEN_MEGABYTES, Chain.WITH_KEY)),
        1,
    ),
    "other-chain-elsewhere": (proven(alternate_urls=(ELSEWHERE,)), 1),
    "other-chain-lost": (
        faulty(
            Fault(Resource.CERTIFICATE, skip=1, times=2, drop=True), alternates=(Chain.WITH_ROOT,)
        ),
        1,
    ),
    "ready-after-finalize": (
        proven(after_finalize=AfterFinalize.READY, polls_until_done=3),
        1,
    ),
    "finalize-refused-though-valid": (proven(deny_finalize=True), 1),
    "finalize-refused-though-processing": (
        proven(deny_finalize=True, after_finalize=AfterFinalize.PROCESSING, polls_until_done=2),
        1,
    ),
    "order-forgotten-before-finalize": (
        faulty(Fault.refusal(Resource.ORDER, 404, "malformed")),
        2,
    ),
    "order-forgotten-for-a-moment": (
        faulty(
            Fault.refusal(Resource.ORDER, 404, "malformed", skip=1, times=2),
            after_finalize=AfterFinalize.PROCESSING,
            polls_until_done=2,
        ),
        1,
    ),
    "order-ended-before-finalize": (
        faulty(
            Fault.refusal(Resource.FINALIZE, 403, "orderNotReady"),
            answered(Resource.ORDER, order_document("invalid"), skip=1, times=2),
        ),
        2,
    ),
    "order-for-other-names": (
        faulty(
            answered(
                Resource.NEW_ORDER,
                order_document("ready", identifiers=[{"type": "dns", "value": "evil.test"}]),
                times=1,
            )
        ),
        1,
    ),
    "order-url-missing": (
        faulty(
            answered(Resource.NEW_ORDER, order_document("ready"), times=1, headers={"Location": ""})
        ),
        2,
    ),
}

PASSING_FAULTS: Final = tuple(
    Case(id=name, script=script, ending=Ending.VALID, most_orders=orders)
    for name, (script, orders) in _PASSING.items()
)

# ------------------------------------------------------------------------------ rate limits


def _limited(resource: Resource, retry_after: str | None, status: int = 429) -> Script:
    problem = "rateLimited" if status == 429 else "serverInternal"
    return faulty(Fault.refusal(resource, status, problem, retry_after=retry_after))


_LIMITS: Final[Sequence[tuple[str, Resource, str | None, int, float]]] = (
    ("limited-for-3-s", Resource.NEW_ORDER, "3", 429, 3.0),
    # The date has whole seconds, and four lie between it and the script's beginning.
    ("limited-until-a-date", Resource.NEW_ORDER, SOON, 429, 2.0),
    ("limited-without-a-time", Resource.NEW_ORDER, None, 429, 4.5),
    ("limited-for-minus-3-s", Resource.NEW_ORDER, "-3", 429, 4.5),
    ("limited-for-nonsense", Resource.NEW_ORDER, "tomorrow", 429, 4.5),
    ("limited-until-the-past", Resource.NEW_ORDER, "Sun, 06 Nov 1994 08:49:37 GMT", 429, 0.0),
    ("limited-at-finalize", Resource.FINALIZE, "2", 429, 2.0),
    ("limited-at-certificate", Resource.CERTIFICATE, "2", 429, 2.0),
    ("unavailable-for-3-s", Resource.NEW_ORDER, "3", 503, 3.0),
)

RATE_LIMITS: Final = tuple(
    Case(
        id=name,
        script=_limited(resource, retry_after, status),
        ending=Ending.VALID,
        most_calls=10,
        quiet_after=resource,
        quiet_seconds=seconds,
    )
    for name, resource, retry_after, status, seconds in _LIMITS
)

A_DAY: Final = tuple(
    Case(
        id=name,
        script=script,
        ending=Ending.WAITING,
        says=says,
        most_calls=8,
        is_mended=False,
    )
    for name, script, says in (
        ("limited-for-10-years", _limited(Resource.NEW_ORDER, str(YEARS_SECONDS)), "429"),
        (
            "limited-until-2060",
            _limited(Resource.NEW_ORDER, "Sat, 06 Nov 2060 08:49:37 GMT"),
            "429",
        ),
        ("limited-by-40-digits", _limited(Resource.NEW_ORDER, "9" * 40), "429"),
        (
            "processing-retry-after-10-years",
            proven(
                after_finalize=AfterFinalize.PROCESSING,
                polls_until_done=2,
                retry_after=str(YEARS_SECONDS),
            ),
            "still processing",
        ),
    )
)

# ------------------------------------------------------------------------------ refusals

_LEAKY: Final = f"see https://{ITSELF}/order/x or {ITSELF}/y?token=z of {STRANGER}/z"

_REFUSALS: Final[Sequence[tuple[str, Resource, int, str, str, str]]] = (
    (
        "name-refused",
        Resource.NEW_ORDER,
        403,
        "rejectedIdentifier",
        "not this one",
        "rejectedIdentifier",
    ),
    (
        "name-refused-with-addresses",
        Resource.NEW_ORDER,
        403,
        "rejectedIdentifier",
        _LEAKY,
        "rejectedIdentifier",
    ),
    ("caa-forbids", Resource.NEW_ORDER, 403, "caa", "not by us", "caa"),
    ("not-authorized", Resource.NEW_ORDER, 403, "unauthorized", "not you", "unauthorized"),
    ("unheard-of-problem", Resource.NEW_ORDER, 400, "weirdness", "odd", "serverInternal"),
    ("csr-refused", Resource.FINALIZE, 400, "badCSR", "not this key", "badCSR"),
    ("finalize-forbidden", Resource.FINALIZE, 403, "unauthorized", _LEAKY, "unauthorized"),
)

REFUSALS: Final = (
    *(
        Case(
            id=name,
            script=faulty(Fault.refusal(resource, status, told, detail=detail, times=FOREVER)),
            ending=Ending.REFUSED,
            says="refused: ",
            problem=problem,
            most_calls=8,
        )
        for name, resource, status, told, detail, problem in _REFUSALS
    ),
    Case(
        id="invalid-after-finalize",
        script=proven(after_finalize=AfterFinalize.INVALID),
        ending=Ending.REFUSED,
        says="told to refuse",
        problem="rejectedIdentifier",
        most_calls=6,
    ),
    Case(
        id="end-not-supported",
        script=proven(not_after=NotAfter.REFUSE),
        ending=Ending.REFUSED,
        says="notAfter is not supported",
        problem="malformed",
        most_calls=6,
    ),
)

CASES: Final = (
    *WRONG_CERTIFICATES,
    *UNUSABLE_CHAINS,
    *MENDED_CHAINS,
    *BAD_TOKENS,
    *CHALLENGES,
    *MISLEADING_ADDRESSES,
    *LASTING_FAULTS,
    *HANGING,
    *PASSING_FAULTS,
    *RATE_LIMITS,
    *A_DAY,
    *REFUSALS,
)
"""Every case, the slow kinds not together: they are played side by side, in this order."""
