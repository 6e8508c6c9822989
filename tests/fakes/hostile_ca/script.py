"""What the hostile CA is told to do wrong: values that travel as JSON.

Two kinds of wrong.  A :class:`Behaviour` is what the CA does with an order from
its creation on; a :class:`Fault` happens to single requests, whatever they are
about.  Both default to an honest CA.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from pydantic import ConfigDict, TypeAdapter

DAY_SECONDS: Final = 86_400
STRICT: Final = ConfigDict(extra="forbid")
"""A misspelt switch in a JSON script is an error, not an honest CA."""

FOREVER: Final = 1_000_000_000
"""A count no test reaches."""


class Resource(enum.StrEnum):
    """The resources that requests are counted by and faults are aimed at."""

    DIRECTORY = "directory"
    NEW_NONCE = "newNonce"
    NEW_ACCOUNT = "newAccount"
    NEW_ORDER = "newOrder"
    REVOKE = "revokeCert"
    ACCOUNT = "account"
    ORDERS = "orders"
    ORDER = "order"
    AUTHORIZATION = "authorization"
    CHALLENGE = "challenge"
    FINALIZE = "finalize"
    CERTIFICATE = "certificate"
    RENEWAL_INFO = "renewalInfo"

    @property
    def is_signed(self) -> bool:
        """Whether requests for it carry a signature."""
        return self not in (Resource.DIRECTORY, Resource.NEW_NONCE, Resource.RENEWAL_INFO)


class NotAfter(enum.StrEnum):
    """What becomes of a ``notAfter`` in newOrder."""

    HONOUR = "honour"
    IGNORE = "ignore"
    REFUSE = "refuse"


class Chain(enum.StrEnum):
    """What the certificate resource is answered with."""

    HONEST = "honest"
    INTERMEDIATE_FIRST = "intermediate first"
    NO_INTERMEDIATE = "no intermediate"
    WITH_ROOT = "with root"
    WITH_STRANGER = "with stranger"
    WITH_KEY = "with key"
    FIFTY = "fifty certificates"
    TEN_MEGABYTES = "ten megabytes"
    HTML = "html"
    EMPTY = "empty"
    NEWLINE = "newline"


class ChallengeResult(enum.StrEnum):
    """What a challenge becomes when the client says it is ready; nobody looks."""

    VALID = "valid"
    INVALID = "invalid"
    PROCESSING = "processing"


class AfterFinalize(enum.StrEnum):
    """What the order shows after an accepted finalize, until ``polls_until_done`` have passed.

    INVALID is the exception: nothing is signed, and the order is lost for good.
    """

    VALID = "valid"
    PROCESSING = "processing"
    READY = "ready"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the CA treats an order; the one in force at newOrder stays with the order."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    coalesce: bool = False
    """Answer newOrder with an unfinished order of the same account, names and profile."""

    authorizations_valid: bool = False
    """Whether new orders are ready at once."""

    challenge_types: tuple[str, ...] = ("http-01", "dns-01")
    challenge_result: ChallengeResult = ChallengeResult.VALID
    token: str | None = None
    """The token of every challenge; None for a good one."""

    challenge_without_token: bool = False
    """Whether a challenge of a kind without a token stands before the others."""

    after_finalize: AfterFinalize = AfterFinalize.VALID
    polls_until_done: int = 0
    """How often ``after_finalize`` is shown before valid; the finalize answer is the first."""

    deny_finalize: bool = False
    """Answer finalize with 403 orderNotReady although it was accepted and the order is valid."""

    retry_after: str | None = "1"
    """Retry-After of an order that isn't done, as the header's text."""

    not_after: NotAfter = NotAfter.HONOUR
    lifetime_seconds: int = 90 * DAY_SECONDS
    extra_lifetime_seconds: int = 0
    """Added to the end that was asked for or would have been given."""

    starts_in_seconds: int = -60
    """Start of validity from now; the default backdates by a minute."""

    ends_in_seconds: int | None = None
    """End of validity from now, whatever else is said; negative for one already expired."""

    other_key: bool = False
    extra_names: tuple[str, ...] = ()
    missing_names: tuple[str, ...] = ()
    is_ca: bool = False
    extended_key_usages: tuple[str, ...] = ("1.3.6.1.5.5.7.3.1",)
    """Object identifiers; serverAuth alone by default."""

    extra_extensions: Mapping[str, str] = field(default_factory=dict)
    """Object identifier → DER in hex, added and not critical."""

    same_certificate: bool = False
    """Hand out again what was issued last to this account for these names."""

    self_issued: bool = False
    """Sign with a key of nobody's, under the intermediate's name."""

    chain: Chain = Chain.HONEST
    alternates: tuple[Chain, ...] = ()
    """Other chains that are offered by Link, each in this shape."""

    alternate_urls: tuple[str, ...] = ()
    """Further places that the Link of a certificate names as alternates."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to requests for one resource, or for any.

    The first ``skip`` matching requests pass, the next ``times`` are hit.  Faults
    are looked at in order, and one request is hit by at most one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    resource: Resource | None
    skip: int = 0
    times: int = 1
    signed_only: bool = False
    """Whether a fault of any resource spares the directory and newNonce."""

    processed: bool = False
    """Whether the CA does what was asked before it fails to say so."""

    hang: bool = False
    """No answer until the CA is told to release it."""

    drop: bool = False
    """The connection is closed instead of an answer."""

    status: int | None = None
    """HTTP status of the answer in place of the true one."""

    body: str | None = None
    """Body in place of the true one; other headers of the true answer stay."""

    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def hanging(cls, resource: Resource, *, processed: bool = False, skip: int = 0) -> Self:
        """Never answer one request, until released."""
        return cls(resource, skip=skip, hang=True, processed=processed)

    @classmethod
    def lost(cls, resource: Resource, *, processed: bool = True, skip: int = 0) -> Self:
        """Close the connection of one request, after doing what it asked for."""
        return cls(resource, skip=skip, drop=True, processed=processed)

    @classmethod
    def outage(cls, times: int = FOREVER) -> Self:
        """Close every connection and do nothing."""
        return cls(None, times=times, drop=True)

    @classmethod
    def refusal(
        cls,
        resource: Resource | None,
        status: int,
        problem: str,
        *,
        retry_after: str | None = None,
        detail: str = "told to refuse",
        times: int = 1,
        skip: int = 0,
    ) -> Self:
        """Answer signed requests with a problem document; *problem* is its type's last part."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        body = f'{{"type":"urn:ietf:params:acme:error:{problem}","detail":"{detail}"}}'
        return cls(
            resource,
            skip=skip,
            times=times,
            signed_only=resource is None,
            status=status,
            body=body,
            content_type="application/problem+json",
            headers=headers,
        )

    @classmethod
    def bad_nonce(cls, resource: Resource | None = None, *, times: int = 1, skip: int = 0) -> Self:
        """Call a good nonce bad; the answer carries a fresh one."""
        return cls.refusal(resource, 400, "badNonce", times=times, skip=skip)

    @classmethod
    def garbage(
        cls, resource: Resource, body: str, *, processed: bool = True, times: int = 1
    ) -> Self:
        """Answer with the true status and headers, and with *body*."""
        return cls(resource, times=times, body=body, processed=processed)

    @classmethod
    def redirect(cls, resource: Resource, target_url: str, *, status: int = 307) -> Self:
        """Send the client elsewhere."""
        return cls(resource, times=FOREVER, status=status, headers={"Location": target_url})


@dataclass(slots=True)
class Script:
    """All that the CA is told: standing orders, exceptions and faults.

    ``next_orders`` are used up, one for each order created, before ``standing``
    applies again.  The object may be changed while the CA runs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    standing: Behaviour = field(default_factory=Behaviour)
    next_orders: list[Behaviour] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    profiles: dict[str, int] = field(default_factory=dict)
    """Name → lifetime in seconds, advertised in the directory's meta."""

    directory_overrides: dict[str, str] = field(default_factory=dict)
    """Directory member → URL in place of the true one."""

    link_base: str | None = None
    """Origin put in place of the CA's own in every Location and link but the directory's."""

    renewal_info: str | None = None
    """What is said of every certificate's renewal; None: none is offered."""

    renewal_retry_after: str | None = "21600"
    """Retry-After beside it, as the header's text."""

    external_accounts: dict[str, str] = field(default_factory=dict)
    """kid → base64url MAC key; where there is any, newAccount without a binding is refused."""

    certificates_per_names: int | None = None
    """How many certificates one set of names gets before newOrder is refused."""

    def behaviour_for_new_order(self) -> Behaviour:
        """Return how the order that is being created shall be treated."""
        return self.next_orders.pop(0) if self.next_orders else self.standing

    def take_fault(self, resource: Resource) -> Fault | None:
        """Return the fault that hits this request, and use it up by one."""
        for index, fault in enumerate(self.faults):
            if fault.resource not in (None, resource) or (
                fault.signed_only and not resource.is_signed
            ):
                continue
            if fault.skip > 0:
                self.faults[index] = dataclasses.replace(fault, skip=fault.skip - 1)
                continue
            if fault.times > 1:
                self.faults[index] = dataclasses.replace(fault, times=fault.times - 1)
            else:
                del self.faults[index]
            return fault
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the script as JSON's own types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Script:
        """Return the script that :meth:`to_json` gave, or that names only what differs."""
        return _SCRIPT.validate_python(document)


_SCRIPT: Final = TypeAdapter(Script)
