"""The upstream port over ACME, method by method, with a CA that is honest and one that is not."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import UpstreamOrder
from broker.protocol.exchange import HttpResponse
from broker.protocol.problems import ProblemType
from broker.protocol.resources import OrderStatus
from broker.upstreams.acme import AcmeUpstream, AcmeUpstreamSettings
from broker.upstreams.gate import AccountGate
from tests.fakes.ca_simulator import problem, with_header, with_members
from tests.fakes.hostile_ca.script import (
    AfterFinalize,
    Behaviour,
    Chain,
    ChallengeResult,
    Fault,
    NotAfter,
    Resource,
)
from tests.unit.upstreams.given import Given, csr_der, dns, given, request

END = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HALF_SECOND = timedelta(milliseconds=500)
JSON = (("Content-Type", "application/json"),)


async def valid(known: Given, *names: str) -> UpstreamOrder:
    """Return an order with its certificate issued."""
    return await known.upstream.finalize(await known.ready(*names), csr_der(*names))


# ------------------------------------------------------------------------------------- open_order


async def test_an_order_is_opened_as_asked() -> None:
    """Names, profile and end reach the CA; status, URL and its own words come back."""
    known = await given()
    known.ca.script.profiles["short"] = 3600
    order = await known.upstream.open_order(
        request("a.example.com", "*.example.com", profile="short", not_after=END)
    )
    assert order.url.startswith("https://ca.example/order/")
    assert order.status is OrderStatus.PENDING
    assert set(order.identifiers) == set(dns("a.example.com", "*.example.com"))
    assert (order.profile, order.not_after) == ("short", END)
    (seen,) = known.ca.ledger.orders
    assert (seen.profile, seen.not_after) == ("short", "2026-06-01T12:00:00Z")


async def test_what_is_not_asked_for_is_not_sent() -> None:
    """A CA that refuses every notAfter must not see one."""
    known = await given(Behaviour(not_after=NotAfter.REFUSE))
    assert (await known.opened()).status is OrderStatus.PENDING
    with pytest.raises(Refused, match="notAfter is not supported"):
        await known.upstream.open_order(request(not_after=END))


async def test_authorizations_that_are_valid_make_a_ready_order() -> None:
    """Pre-validated names need nothing more."""
    known = await given(Behaviour(authorizations_valid=True))
    assert (await known.opened()).status is OrderStatus.READY


@pytest.mark.parametrize(
    ("shown", "is_fine"),
    [
        pytest.param(["WWW.example.COM"], True, id="upper-case"),
        pytest.param(["www.example.com."], True, id="root-dot"),
        pytest.param(["www.example.org"], False, id="other-name"),
        pytest.param(["www.example.com", "more.example.com"], False, id="one-more"),
        pytest.param(["www.example.com", "www.example.com"], False, id="twice"),
        pytest.param([], False, id="none"),
    ],
)
async def test_the_order_is_for_the_names_asked_for(shown: list[str], is_fine: bool) -> None:
    """Another spelling is forgiven, another name is not."""
    known = await given()
    identifiers = [{"type": "dns", "value": name} for name in shown]
    known.ca.change(Resource.NEW_ORDER, {"identifiers": identifiers})
    if is_fine:
        assert (await known.opened()).identifiers == dns("www.example.com")
    else:
        with pytest.raises(Broken, match="not for what we asked"):
            await known.opened()


async def test_an_order_without_url_is_broken() -> None:
    """It cannot be found again."""
    known = await given()
    known.ca.intercept(Resource.NEW_ORDER, lambda honest: with_header(honest(), "Location", None))
    with pytest.raises(Broken, match="Location"):
        await known.opened()


@pytest.mark.parametrize("member", ["finalize", "status", "authorizations"])
async def test_an_order_that_lacks_a_member_is_broken(member: str) -> None:
    """The sentence names the member."""
    known = await given()
    known.ca.change(Resource.NEW_ORDER, {member: None})
    with pytest.raises(Broken, match=f"order.{member}"):
        await known.opened()


async def test_a_refused_name_is_a_refusal_with_the_cas_words() -> None:
    """Type and subproblems come through for whoever tells the client."""
    known = await given()
    document = problem("rejectedIdentifier", "blocked", 400) | {
        "subproblems": [
            problem("rejectedIdentifier", "on a list", 400)
            | {"identifier": {"type": "dns", "value": "www.example.com"}}
        ]
    }
    known.ca.intercept(Resource.NEW_ORDER, lambda _: refusal(400, document))
    with pytest.raises(Refused) as caught:
        await known.opened()
    assert caught.value.problem.type is ProblemType.REJECTED_IDENTIFIER
    assert caught.value.problem.subproblems[0].detail == "on a list"


def refusal(status: int, document: dict[str, object]) -> HttpResponse:
    """Return an answer with a problem document."""
    empty = HttpResponse(status, (("Content-Type", "application/problem+json"),), b"{}")
    return with_members(empty, document)


# ---------------------------------------------------------------------------------- whose fault


@pytest.mark.parametrize(
    "token",
    [
        "accountDoesNotExist",
        "userActionRequired",
        "externalAccountRequired",
        "badSignatureAlgorithm",
    ],
)
async def test_a_refusal_of_our_account_fails_no_order(token: str) -> None:
    """A person has to act, and then the order goes on."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.NEW_ORDER, 403, token))
    with pytest.raises(Broken, match=f"upstream 'ca' refuses our account: {token}"):
        await known.opened()
    assert (await known.opened()).status is OrderStatus.PENDING


async def test_a_closed_account_is_told_from_a_refused_order() -> None:
    """CAs say unauthorized to both: reading the account tells which."""
    known = await given()
    for account in known.ca.resources.records.accounts.values():
        account.status = "deactivated"
    with pytest.raises(Broken, match="upstream 'ca' refuses our account: unauthorized"):
        await known.opened()


async def test_signature_that_the_ca_rejects_is_no_refused_order() -> None:
    """It is called malformed; the account's own page is refused with it, and the order waits."""
    known = await given()
    for resource in (Resource.NEW_ORDER, Resource.ACCOUNT):
        known.ca.script.faults.append(Fault.refusal(resource, 400, "malformed"))
    with pytest.raises(Broken, match="refuses our account: malformed") as told:
        await known.opened()
    assert told.value.left_nothing


async def test_order_that_is_malformed_is_refused() -> None:
    """The account is shown as ever, so the word was about the order."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.NEW_ORDER, 400, "malformed"))
    with pytest.raises(Refused):
        await known.opened()


async def test_order_tells_which_account_opened_it() -> None:
    """Another one could not go on with it."""
    known = await given()
    assert known.accounts.record is not None
    assert (await known.opened()).account_url == known.accounts.record.account_url


async def test_account_that_may_be_lost_is_doubted() -> None:
    """Somebody looks then; a CA that is away is no reason."""
    gate = AccountGate()
    known = await given()
    upstream = AcmeUpstream(
        AcmeUpstreamSettings(name="ca", community="default"),
        client=known.client,
        accounts=known.accounts,
        solvers=known.solvers,
        clock=known.clock,
        gate=gate,
    )
    known.ca.script.faults.append(Fault.lost(Resource.NEW_ORDER))
    with pytest.raises(Unreachable):
        await upstream.open_order(request("www.example.com"))
    seen = [gate.is_doubted]
    known.signer.keys.clear()
    with pytest.raises(Broken) as told:
        await upstream.open_order(request("www.example.com"))
    seen.append(gate.is_doubted)
    assert seen == [False, True]
    assert told.value.left_nothing


async def test_an_account_shown_as_closed_is_told_too() -> None:
    """Some CAs still show a closed account."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.NEW_ORDER, 403, "unauthorized"))
    known.ca.change(Resource.ACCOUNT, {"status": "revoked"})
    with pytest.raises(Broken, match="is revoked"):
        await known.opened()


async def test_a_refused_order_of_a_good_account_is_a_refusal() -> None:
    """The account is valid, so the order was meant."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.NEW_ORDER, 403, "unauthorized"))
    with pytest.raises(Refused):
        await known.opened()


async def test_while_the_account_cannot_be_read_nothing_is_decided() -> None:
    """Unsure is no refusal: the order stays and is tried later."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.NEW_ORDER, 403, "unauthorized"))
    known.ca.script.faults.append(Fault.lost(Resource.ACCOUNT))
    with pytest.raises(Unreachable, match="still good is unknown"):
        await known.opened()


# -------------------------------------------------------------------------------------- account


async def test_without_an_account_nothing_is_sent() -> None:
    """The sentence tells the command that registers."""
    known = Given()
    with pytest.raises(Broken, match="penstock upstream register ca"):
        await known.upstream.read_order("https://ca.example/order/1")
    assert known.ca.requests == []


async def test_an_account_of_another_directory_is_not_used() -> None:
    """A configuration that moved to another CA needs another account."""
    known = await given()
    assert known.accounts.record is not None
    known.accounts.record = replace(known.accounts.record, directory_url="https://old/dir")
    sent = len(known.ca.requests)
    with pytest.raises(Broken, match="register again"):
        await known.opened()
    assert len(known.ca.requests) == sent


async def test_an_account_whose_key_was_replaced_is_not_used() -> None:
    """A rotated key signs for nobody."""
    known = await given()
    assert known.accounts.record is not None
    known.accounts.record = replace(known.accounts.record, thumbprint="another")
    with pytest.raises(Broken, match="another key"):
        await known.opened()


async def test_a_new_record_is_seen_without_a_restart() -> None:
    """Registering while the broker runs takes effect within seconds."""
    known = await given()
    record, known.accounts.record = known.accounts.record, None
    with pytest.raises(Broken):
        await known.opened()
    known.accounts.record = record
    assert (await known.opened()).status is OrderStatus.PENDING
    asked = known.accounts.questions
    await known.opened()
    assert known.accounts.questions == asked


# ------------------------------------------------------------------------------------ seek_order


async def test_a_lost_order_is_found() -> None:
    """The answer was lost, the order was not."""
    known = await given()
    known.ca.script.faults.append(Fault.lost(Resource.NEW_ORDER))
    with pytest.raises(Unreachable):
        await known.upstream.open_order(request(not_after=END))
    found = await known.upstream.seek_order(request(not_after=END), ())
    assert found is not None
    assert found.url.endswith(known.ca.ledger.orders[0].order_id)
    assert (await known.upstream.authorize(found)).status is OrderStatus.READY


async def test_a_ca_that_takes_harm_from_the_question_is_not_asked() -> None:
    """A lost order stays lost there; the same one is found where the list may be read."""
    known = await given()
    await known.opened()
    asked = known.ca.asked(Resource.ORDERS)
    assert await known.started(lists_orders=False).seek_order(request(), ()) is None
    assert known.ca.asked(Resource.ORDERS) == asked
    assert await known.started().seek_order(request(), ()) is not None
    assert known.ca.asked(Resource.ORDERS) > asked


async def test_orders_that_are_known_are_passed_over() -> None:
    """An order of ours must not be taken by a second one, nor even be read."""
    known = await given()
    order = await known.opened()
    assert await known.upstream.seek_order(request(), {order.url}) is None
    assert known.ca.asked(Resource.ORDER) == 0
    assert await known.upstream.seek_order(request(), ()) is not None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"identifiers": dns("other.example.com")}, id="other-name"),
        pytest.param({"identifiers": dns("www.example.com", "b.example.com")}, id="more-names"),
        pytest.param({"profile": "short"}, id="other-profile"),
        pytest.param({"profile": None}, id="no-profile"),
        pytest.param({"not_after": END + timedelta(days=1)}, id="other-end"),
        pytest.param({"not_after": None}, id="no-end"),
    ],
)
async def test_an_order_for_something_else_is_not_taken(changes: dict[str, object]) -> None:
    """It would give another certificate than the one asked for."""
    known = await given()
    known.ca.script.profiles.update(short=3600, long=7200)
    asked = request(profile="long", not_after=END)
    await known.upstream.open_order(asked)
    assert await known.upstream.seek_order(replace(asked, **changes), ()) is None  # type: ignore[arg-type]
    assert await known.upstream.seek_order(asked, ()) is not None


async def test_an_order_that_was_finalized_is_not_taken() -> None:
    """Its certificate is for somebody else's key."""
    known = await given()
    await valid(known)
    assert await known.upstream.seek_order(request(), ()) is None


async def test_a_ca_without_a_list_is_no_error() -> None:
    """Let's Encrypt has none."""
    known = await given()
    known.ca.change(Resource.ACCOUNT, {"orders": None})
    assert await known.upstream.seek_order(request(), ()) is None


async def test_the_list_is_read_page_by_page() -> None:
    """RFC 8555 §7.1.2.1: the next page is a link away."""
    known = await given()
    order = await known.opened()
    next_page = '<https://ca.example/orders/next>;rel="next"'
    known.ca.intercept(
        Resource.ORDERS,
        lambda honest: with_header(with_members(honest(), {"orders": []}), "Link", next_page),
    )
    known.ca.intercept(
        Resource.ORDERS,
        lambda _: with_members(HttpResponse(200, JSON, b"{}"), {"orders": [order.url]}),
    )
    found = await known.upstream.seek_order(request(), ())
    assert found is not None
    assert found.url == order.url


async def test_a_list_without_end_is_given_up() -> None:
    """A page that leads to itself is not read for ever."""
    known = await given()
    itself = '<https://ca.example/orders/1>;rel="next"'
    known.ca.intercept(
        Resource.ORDERS,
        lambda _: with_header(HttpResponse(200, JSON, b'{"orders":[]}'), "Link", itself),
        times=100,
    )
    assert await known.upstream.seek_order(request(), ()) is None
    assert known.ca.asked(Resource.ORDERS) == 20


async def test_a_list_that_leads_elsewhere_is_not_followed() -> None:
    """An order at another origin is not fetched; one of the CA's own beside it is."""
    known = await given()
    order = await known.opened()
    known.ca.change(Resource.ORDERS, {"orders": ["https://evil.example/order/1", order.url]})
    found = await known.upstream.seek_order(request(), ())
    assert found is not None
    assert found.url == order.url
    assert not [sent for sent in known.ca.requests if "evil" in sent.url]


async def test_a_bare_list_is_a_list() -> None:
    """One CA leaves out the object around it."""
    known = await given()
    order = await known.opened()
    bare = HttpResponse(200, JSON, f'["{order.url}"]\n'.encode())
    known.ca.intercept(Resource.ORDERS, lambda _: bare)
    assert await known.upstream.seek_order(request(), ()) is not None


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HttpResponse(200, JSON, b"null"), id="null"),
        pytest.param(HttpResponse(200, JSON, b'{"orders":null}'), id="null-in-an-object"),
        pytest.param(HttpResponse(200, JSON, b"{}"), id="no-member"),
        pytest.param(HttpResponse(200, JSON, b'{"orders":[1]}'), id="no-urls"),
        pytest.param(HttpResponse(200, JSON, b'["https://x"] , "a'), id="cut"),
        pytest.param(HttpResponse(200, (), b"<html>"), id="html"),
        pytest.param(HttpResponse(501, (), b""), id="not-implemented"),
        pytest.param(HttpResponse(405, (), b""), id="not-allowed"),
    ],
)
async def test_a_list_that_cannot_be_read_is_no_list(answer: HttpResponse) -> None:
    """A search that failed for ever would cost us the order."""
    known = await given()
    await known.opened()
    known.ca.intercept(Resource.ORDERS, lambda _: answer)
    assert await known.upstream.seek_order(request(), ()) is None


async def test_while_the_list_cannot_be_reached_the_search_is_not_over() -> None:
    """An order may be there."""
    known = await given()
    known.ca.script.faults.append(Fault.lost(Resource.ORDERS))
    with pytest.raises(Unreachable):
        await known.upstream.seek_order(request(), ())


async def test_an_order_that_went_meanwhile_is_passed_over() -> None:
    """The list is older than the orders on it."""
    known = await given()
    await known.opened()
    order = await known.opened()
    known.ca.script.faults.append(Fault.refusal(Resource.ORDER, 404, "malformed"))
    found = await known.upstream.seek_order(request(), ())
    assert found is not None
    assert found.url == order.url


# -------------------------------------------------------------------------------------- finalize


async def test_the_csr_reaches_the_ca_byte_for_byte() -> None:
    """The key holder signed these bytes and no others."""
    known = await given()
    csr = csr_der()
    order = await known.upstream.finalize(await known.ready(), csr)
    assert order.status is OrderStatus.VALID
    assert order.certificate_url is not None
    assert order.retry_at is None
    (seen,) = known.ca.ledger.finalizes
    assert seen.csr_sha256 == hashlib.sha256(csr).hexdigest()


async def test_after_a_restart_the_finalize_url_is_asked_for() -> None:
    """The record of an order holds its URL alone; the CA tells the rest again."""
    known = await given()
    order = await known.ready()
    again = known.started()
    assert (await again.finalize(order, csr_der())).status is OrderStatus.VALID


@pytest.mark.parametrize("shown", [AfterFinalize.PROCESSING, AfterFinalize.READY])
@pytest.mark.parametrize(
    ("header", "wait"),
    [
        pytest.param("5", timedelta(seconds=5), id="named"),
        pytest.param("0", HALF_SECOND, id="zero"),
        pytest.param(None, HALF_SECOND, id="unnamed"),
        pytest.param("-7", HALF_SECOND, id="negative"),
    ],
)
async def test_an_unfinished_order_names_the_time_of_the_next_look(
    shown: AfterFinalize, header: str | None, wait: timedelta
) -> None:
    """Never at once, whatever the CA says: one CA hangs for good when it is asked too soon."""
    known = await given(Behaviour(after_finalize=shown, polls_until_done=2, retry_after=header))
    order = await known.ready()
    first = await known.upstream.finalize(order, csr_der())
    second = await known.upstream.read_order(order.url)
    assert [seen.status.value for seen in (first, second)] == [shown.value] * 2
    assert [seen.retry_at for seen in (first, second)] == [known.clock.now() + wait] * 2
    done = await known.upstream.read_order(order.url)
    assert (done.status, done.retry_at) == (OrderStatus.VALID, None)


async def test_a_refused_csr_is_a_refusal() -> None:
    """The order can still be finalized with another."""
    known = await given()
    order = await known.ready()
    with pytest.raises(Refused) as caught:
        await known.upstream.finalize(order, csr_der("other.example.com"))
    assert caught.value.problem.type is ProblemType.BAD_CSR
    assert (await known.upstream.finalize(order, csr_der())).status is OrderStatus.VALID


async def test_not_ready_is_not_believed_of_a_valid_order() -> None:
    """The refusal may be about an earlier finalize that got through: the order tells."""
    known = await given(Behaviour(deny_finalize=True))
    order = await known.upstream.finalize(await known.ready(), csr_der())
    assert order.status is OrderStatus.VALID
    assert len(known.ca.ledger.certificates) == 1


async def test_not_ready_of_an_order_shown_as_ready_means_later() -> None:
    """One of the two answers is old."""
    known = await given()
    order = await known.ready()
    known.ca.script.faults.append(Fault.refusal(Resource.FINALIZE, 403, "orderNotReady"))
    with pytest.raises(Unreachable, match="ready"):
        await known.upstream.finalize(order, csr_der())
    assert (await known.upstream.finalize(order, csr_der())).status is OrderStatus.VALID


async def test_not_ready_of_an_order_that_had_ended_is_a_refusal() -> None:
    """Nothing was finalized, so nothing came of it: the order as it is would be no answer."""
    known = await given()
    order = await known.ready()
    (theirs,) = known.ca.resources.records.orders.values()
    theirs.status = "invalid"
    with pytest.raises(Refused) as refused:
        await known.upstream.finalize(order, csr_der())
    assert refused.value.problem.type is ProblemType.ORDER_NOT_READY


async def test_an_order_that_failed_carries_the_reason() -> None:
    """An invalid order is an answer, with the CA's problem in it."""
    known = await given(Behaviour(after_finalize=AfterFinalize.INVALID))
    order = await known.upstream.finalize(await known.ready(), csr_der())
    assert order.status is OrderStatus.INVALID
    assert order.error is not None
    assert order.error.type is ProblemType.REJECTED_IDENTIFIER


async def test_a_lost_finalize_is_seen_by_reading_the_order() -> None:
    """Nothing is sent twice: the order shows what became of it."""
    known = await given()
    order = await known.ready()
    known.ca.script.faults.append(Fault.lost(Resource.FINALIZE))
    with pytest.raises(Unreachable):
        await known.upstream.finalize(order, csr_der())
    assert (await known.upstream.read_order(order.url)).status is OrderStatus.VALID
    assert len(known.ca.ledger.finalizes) == 1


async def test_an_order_that_changed_its_names_is_broken() -> None:
    """RFC 8555 §7.1.3: identifiers do not change after creation."""
    known = await given()
    order = await known.ready()
    known.ca.change(Resource.FINALIZE, {"identifiers": [{"type": "dns", "value": "x.example"}]})
    with pytest.raises(Broken, match="not for what we asked"):
        await known.upstream.finalize(order, csr_der())


async def test_a_finalize_url_elsewhere_is_not_used() -> None:
    """The CSR of a client goes to the CA and to nobody else."""
    known = await given(Behaviour(authorizations_valid=True))
    known.ca.change(Resource.NEW_ORDER, {"finalize": "https://evil.example/finalize"})
    order = await known.opened()
    with pytest.raises(Broken, match="another origin"):
        await known.upstream.finalize(order, csr_der())


# ------------------------------------------------------------------- read_order, download, revoke


async def test_an_order_that_is_gone_is_a_refusal() -> None:
    """404 with a problem document: the CA knows no such order."""
    known = await given()
    with pytest.raises(Refused) as caught:
        await known.upstream.read_order("https://ca.example/order/gone")
    assert caught.value.problem.status == 404


async def test_a_404_that_is_only_a_page_is_no_refusal() -> None:
    """A load balancer's page must not end an order."""
    known = await given()
    order = await known.opened()
    page = HttpResponse(404, (("Content-Type", "text/html"),), b"<html>")
    known.ca.intercept(Resource.ORDER, lambda _: page)
    with pytest.raises(Broken, match="without a problem document"):
        await known.upstream.read_order(order.url)


async def test_the_chain_comes_exactly_as_sent() -> None:
    """PEM with the leaf first, which fits the CSR."""
    known = await given()
    pem = await known.upstream.download(await valid(known))
    certificates = x509.load_pem_x509_certificates(pem)
    assert len(certificates) == 2
    seen = known.ca.ledger.certificates[0]
    assert f"{certificates[0].serial_number:x}" == seen.serial_hex
    accept = known.ca.requests[-1].headers["Accept"]
    assert accept == "application/pem-certificate-chain"


@pytest.mark.parametrize("chain", [Chain.WITH_KEY, Chain.FIFTY, Chain.EMPTY, Chain.NEWLINE])
async def test_the_chain_is_not_judged_here(chain: Chain) -> None:
    """Whatever it is, the workflow has to see it."""
    known = await given(Behaviour(chain=chain))
    order = await valid(known)
    issued = next(iter(known.ca.resources.records.certificates.values()))
    assert await known.upstream.download(order) == issued.answer


async def test_a_chain_of_ten_megabytes_is_not_read() -> None:
    """The limit is on what is read, not on what is kept."""
    known = await given(Behaviour(chain=Chain.TEN_MEGABYTES))
    with pytest.raises(Broken, match="more than 100000 bytes"):
        await known.upstream.download(await valid(known))


async def test_a_page_in_place_of_a_chain_is_broken() -> None:
    """The media type tells."""
    known = await given()
    order = await valid(known)
    known.ca.intercept(
        Resource.CERTIFICATE, lambda honest: with_header(honest(), "Content-Type", "text/html")
    )
    with pytest.raises(Broken, match="text/html"):
        await known.upstream.download(order)
    assert (await known.upstream.download(order)).startswith(b"-----BEGIN CERTIFICATE-----")


async def test_an_order_without_a_certificate_is_not_downloaded() -> None:
    """Valid without a certificate URL, or not valid at all."""
    known = await given()
    order = await valid(known)
    for unfit in (replace(order, certificate_url=None), replace(order, status=OrderStatus.READY)):
        with pytest.raises(Broken, match="certificate URL"):
            await known.upstream.download(unfit)


async def test_a_certificate_is_revoked_with_its_reason() -> None:
    """By our account, and a second time is no error."""
    known = await given()
    pem = await known.upstream.download(await valid(known))
    der = x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    await known.upstream.revoke(der, 4)
    await known.upstream.revoke(der, 4)
    (seen,) = known.ca.ledger.revocations
    assert seen.reason == 4


async def test_a_refused_revocation_is_a_refusal() -> None:
    """A certificate of somebody else's CA."""
    known = await given()
    known.ca.script.faults.append(Fault.refusal(Resource.REVOKE, 400, "badRevocationReason"))
    with pytest.raises(Refused):
        await known.upstream.revoke(b"certificate", 99)


async def test_a_ca_without_revocation_is_told() -> None:
    """The resource is optional."""
    known = Given()
    known.ca.change(Resource.DIRECTORY, {"revokeCert": None})
    await known.registered()
    with pytest.raises(Broken, match="offers no revocation"):
        await known.upstream.revoke(b"certificate", 4)


# ------------------------------------------------------------------------------------- authorize


async def test_an_order_that_is_not_pending_is_left_alone() -> None:
    """Nothing is sent for an order that needs nothing."""
    known = await given(Behaviour(authorizations_valid=True))
    order = await known.opened()
    sent = len(known.ca.requests)
    assert await known.upstream.authorize(order) is order
    assert len(known.ca.requests) == sent


async def test_a_pending_order_becomes_ready() -> None:
    """Two names and a wildcard, each answered, each answer withdrawn."""
    known = await given()
    order = await known.ready("example.com", "*.example.com", "www.example.com")
    assert order.status is OrderStatus.READY
    assert known.solver.published == []
    names = sorted(answer.identifier.value for answer in known.solver.withdrawn)
    assert names == ["example.com", "example.com", "www.example.com"]


async def test_an_order_may_lag_behind_its_authorizations() -> None:
    """It is watched until it is ready."""
    known = await given()
    order = await known.opened()
    known.ca.change(Resource.ORDER, {"status": "pending"}, times=3)
    assert (await known.upstream.authorize(order)).status is OrderStatus.READY
    assert known.ca.asked(Resource.ORDER) == 4


async def test_an_order_that_lags_for_ever_means_later() -> None:
    """The watch has an end."""
    known = await given()
    order = await known.opened()
    known.ca.change(Resource.ORDER, {"status": "pending"}, times=1000)
    with pytest.raises(Unreachable, match="still pending"):
        await known.upstream.authorize(order)


async def test_an_invalid_authorization_is_a_refusal() -> None:
    """The order will never be ready."""
    known = await given(Behaviour(challenge_result=ChallengeResult.INVALID))
    with pytest.raises(Refused):
        await known.ready()


# --------------------------------------------------------------------------------------- withdraw


async def test_a_withdrawn_order_makes_room_for_another() -> None:
    """A CA that hands out its pending order again makes a new one once that is withdrawn."""
    known = await given(Behaviour(coalesce=True))
    first = await known.opened()
    assert (await known.opened()).url == first.url
    await known.upstream.withdraw(first)
    assert (await known.upstream.read_order(first.url)).status is OrderStatus.INVALID
    assert (await known.opened()).url != first.url
