"""Certificates that a CA has issued: their other chains, and what it says of their renewal."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import UpstreamOrder
from broker.protocol.encoding import parse_base64url
from broker.protocol.exchange import HttpResponse
from broker.protocol.resources import OrderStatus
from broker.upstreams.issued import MAX_ALTERNATES
from tests.fakes.hostile_ca.script import Behaviour, Chain, Fault, Resource
from tests.unit.upstreams.given import Given, csr_der, given, request

WINDOW = {"suggestedWindow": {"start": "2026-12-01T00:00:00Z", "end": "2026-12-02T00:00:00Z"}}
CERT_ID = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


async def valid(known: Given) -> UpstreamOrder:
    """Return an order with its certificate issued."""
    return await known.upstream.finalize(await known.ready(), csr_der())


async def all_chains(known: Given) -> list[bytes]:
    """Return every chain that comes back, the first one first."""
    order = await valid(known)
    first = await known.upstream.download(order)
    return [first, *await known.upstream.download_alternates(order)]


async def test_other_chains_are_fetched_as_they_are() -> None:
    """With a request for each, signed by our account, and none for the first again."""
    known = await given(Behaviour(alternates=(Chain.WITH_ROOT, Chain.NO_INTERMEDIATE)))
    first, *others = await all_chains(known)
    issuer = known.ca.resources.issuer
    issued = next(iter(known.ca.resources.records.certificates.values())).certificate
    shapes = (Chain.WITH_ROOT, Chain.NO_INTERMEDIATE)
    assert others == [issuer.answer(issued, shape) for shape in shapes]
    assert first == issuer.answer(issued, Chain.HONEST)
    assert known.ca.asked(Resource.CERTIFICATE) == 3


async def test_ca_without_other_chains_is_asked_nothing_more() -> None:
    """The usual case costs nothing."""
    known = await given()
    assert len(await all_chains(known)) == 1
    assert known.ca.asked(Resource.CERTIFICATE) == 1


async def test_other_chains_of_a_certificate_fetched_before_a_restart_are_found() -> None:
    """What was forgotten is asked for again."""
    known = await given(Behaviour(alternates=(Chain.WITH_ROOT,)))
    assert len(await known.upstream.download_alternates(await valid(known))) == 1


async def test_many_other_chains_are_cut() -> None:
    """A CA that offers a thousand is believed the first few."""
    known = await given(Behaviour(alternates=(Chain.WITH_ROOT,) * 20))
    assert len(await all_chains(known)) == 1 + MAX_ALTERNATES


async def test_other_chain_elsewhere_is_not_fetched() -> None:
    """The simulated CA fails the test if anything is sent to a stranger; the rest is fetched."""
    known = await given(
        Behaviour(
            alternates=(Chain.WITH_ROOT,),
            alternate_urls=("https://evil.example/chain", "http://ca.example/chain", "::"),
        )
    )
    assert len(await all_chains(known)) == 2


@pytest.mark.parametrize("chain", [Chain.HTML, Chain.EMPTY, Chain.WITH_KEY])
async def test_other_chain_is_not_judged_here(chain: Chain) -> None:
    """Whatever it is, the workflow has to see it, under the media type of a chain."""
    known = await given(Behaviour(alternates=(chain,)))
    assert len(await all_chains(known)) == 2


async def test_other_chain_of_ten_megabytes_is_passed_over() -> None:
    """The limit is that of the first."""
    known = await given(Behaviour(alternates=(Chain.TEN_MEGABYTES, Chain.WITH_ROOT)))
    assert len(await all_chains(known)) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault.refusal(Resource.CERTIFICATE, 404, "malformed", skip=1),
        Fault(Resource.CERTIFICATE, skip=1, processed=True, content_type="text/html"),
    ],
    ids=["refused", "a page"],
)
async def test_other_chain_that_is_not_given_is_passed_over(fault: Fault) -> None:
    """The first one is what was asked for."""
    known = await given(Behaviour(alternates=(Chain.WITH_ROOT,)))
    known.ca.script.faults.append(fault)
    assert len(await all_chains(known)) == 1


async def test_other_chain_that_cannot_be_reached_is_told() -> None:
    """Whether it is worth waiting for is the workflow's to say."""
    known = await given(Behaviour(alternates=(Chain.WITH_ROOT,)))
    known.ca.script.faults.append(Fault.lost(Resource.CERTIFICATE, skip=1))
    with pytest.raises(Unreachable):
        await all_chains(known)


async def test_order_without_a_certificate_has_no_other_chains() -> None:
    """As for the first."""
    known = await given()
    order = await valid(known)
    for unfit in (replace(order, certificate_url=None), replace(order, status=OrderStatus.READY)):
        with pytest.raises(Broken):
            await known.upstream.download_alternates(unfit)


# -------------------------------------------------------------------------------------- renewal


async def offering() -> Given:
    """Return a CA that offers renewal information, at which we are registered."""
    known = Given()
    known.ca.script.renewal_info = json.dumps(WINDOW)
    return await known.registered()


async def test_window_is_asked_for_without_a_signature() -> None:
    """By GET, under the CertID."""
    known = await offering()
    answer = await known.upstream.renewal_info(CERT_ID)
    assert answer is not None
    assert answer.info.to_json() == WINDOW
    assert answer.retry_at == known.clock.now() + timedelta(hours=6)
    asked = known.ca.requests[-1]
    assert (asked.method, asked.body) == ("GET", None)
    assert asked.url == f"https://ca.example/renewalInfo/{CERT_ID}"


async def test_ca_without_renewal_information_is_not_asked() -> None:
    """Its directory says so."""
    known = await given()
    assert await known.upstream.renewal_info(CERT_ID) is None
    assert known.ca.asked(Resource.RENEWAL_INFO) == 0


async def test_answer_without_retry_after_names_no_time() -> None:
    """What to make of that is the workflow's affair."""
    known = await offering()
    known.ca.script.renewal_retry_after = None
    answer = await known.upstream.renewal_info(CERT_ID)
    assert answer is not None
    assert answer.retry_at is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(Fault(Resource.RENEWAL_INFO, status=503, body=""), Unreachable, id="503"),
        pytest.param(Fault(Resource.RENEWAL_INFO, status=429, body=""), Unreachable, id="429"),
        pytest.param(Fault.lost(Resource.RENEWAL_INFO), Unreachable, id="dropped"),
        pytest.param(
            Fault.refusal(Resource.RENEWAL_INFO, 404, "malformed"), Refused, id="unknown there"
        ),
        pytest.param(Fault(Resource.RENEWAL_INFO, status=404, body=""), Broken, id="bare 404"),
        pytest.param(Fault(Resource.RENEWAL_INFO, body="{}"), Broken, id="no window"),
        pytest.param(Fault(Resource.RENEWAL_INFO, body="[]"), Broken, id="no object"),
    ],
)
async def test_other_answers_are_told_apart(answer: Fault, kind: type[Exception]) -> None:
    """What may pass, what lasts, and what is nonsense."""
    known = await offering()
    known.ca.script.faults.append(answer)
    with pytest.raises(kind):
        await known.upstream.renewal_info(CERT_ID)


@pytest.mark.parametrize("status", [429, 503])
async def test_limits_on_renewal_information_hold_up_no_order(status: int) -> None:
    """It has a front of its own at large CAs."""
    known = await offering()
    gone = HttpResponse(status, (("Retry-After", "3600"),))
    known.ca.intercept(Resource.RENEWAL_INFO, lambda _: gone)
    with pytest.raises(Unreachable):
        await known.upstream.renewal_info(CERT_ID)
    assert (await known.opened()).status is OrderStatus.PENDING


# ------------------------------------------------------------------------------------- replaces


@pytest.mark.parametrize("is_offered", [True, False], ids=["offered", "not offered"])
async def test_replaces_is_sent_where_renewal_information_is_offered(is_offered: bool) -> None:
    """RFC 9773 §5: a client should not send it elsewhere."""
    known = await (offering() if is_offered else given())
    seen: list[bytes] = []

    def look(honest: object) -> HttpResponse:
        seen.append(known.ca.requests[-1].body or b"")
        return honest()  # type: ignore[operator,no-any-return]

    known.ca.intercept(Resource.NEW_ORDER, look)
    await known.upstream.open_order(request(replaces=CERT_ID))
    payload = json.loads(parse_base64url(json.loads(seen[0])["payload"]))
    assert payload.get("replaces") == (CERT_ID if is_offered else None)


async def test_ca_that_takes_no_reason_is_told_none() -> None:
    """Vault's PKI refuses every reason but the unspecified one; the certificate is revoked."""
    known = await given()
    pem = await known.upstream.download(await valid(known))
    der = x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    known.ca.script.faults.append(Fault.refusal(Resource.REVOKE, 400, "badRevocationReason"))
    await known.upstream.revoke(der, 4)
    (seen,) = known.ca.ledger.revocations
    assert not seen.reason
    assert known.ca.asked(Resource.REVOKE) == 2


async def test_ca_that_refuses_for_another_cause_is_asked_once() -> None:
    """The twin: only a refused reason is a cause to leave it away."""
    known = await given()
    pem = await known.upstream.download(await valid(known))
    der = x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    known.ca.script.faults.append(Fault.refusal(Resource.REVOKE, 403, "unauthorized"))
    with pytest.raises(Refused):
        await known.upstream.revoke(der, 4)
    assert known.ca.ledger.revocations == []
    assert known.ca.asked(Resource.REVOKE) == 1
