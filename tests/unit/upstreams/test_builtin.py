"""The built-in CA as an upstream: one certificate an order, for ever, within its own limits."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import Upstream, UpstreamRequest
from broker.issuance.records import CaCertificateRecord
from broker.protocol.certificates import parse_chain, verify_chain_anchored
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import ProblemType
from broker.protocol.resources import OrderStatus
from broker.upstreams.authority import (
    Authority,
    AuthorityPlan,
    IssuerSet,
    PermittedNames,
    RetiredIssuer,
    create_issuing,
)
from broker.upstreams.builtin import BuiltinCa, BuiltinSettings
from broker.upstreams.builtin_orders import order_url
from tests.fakes.builtin_ca import (
    BASE_URL,
    DAY,
    PROFILES,
    CaWorld,
    PrivateKey,
    dns,
    make_csr,
    make_world,
    request,
    spki,
)
from tests.fakes.clock import START

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


async def issue(
    ca: Upstream, asked: UpstreamRequest, key: PrivateKey = KEY
) -> list[x509.Certificate]:
    """Take an order from its opening to its chain."""
    order = await ca.open_order(asked)
    assert order.status is OrderStatus.READY
    order = await ca.authorize(order)
    names = [identifier.value for identifier in asked.identifiers]
    order = await ca.finalize(order, make_csr(key, *names))
    assert order.status is OrderStatus.VALID
    return x509.load_pem_x509_certificates(await ca.download(order))


def refusal(caught: pytest.ExceptionInfo[Refused]) -> ProblemType | None:
    """Return the type of the problem that a refusal carries."""
    return caught.value.problem.type


# ---------------------------------------------------------------------------- issuing


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
@pytest.mark.parametrize(
    "key",
    [
        pytest.param(KEY, id="ec-leaf"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa-leaf"),
    ],
)
async def test_chain_verifies_to_the_root(kind: str, key: PrivateKey) -> None:
    """Leaf and issuing CA, no root; two verifiers of different make agree."""
    world = await make_world(kind)
    leaf, issuing = await issue(world.ca, request("www.corp.example", "*.corp.example"), key)
    verifier = PolicyBuilder().store(Store([world.root.certificate])).time(START)
    path = verifier.build_server_verifier(x509.DNSName("www.corp.example")).verify(leaf, [issuing])
    assert path == [leaf, issuing, world.root.certificate]
    pem = b"".join(c.public_bytes(Encoding.PEM) for c in (leaf, issuing))
    verify_chain_anchored(parse_chain(pem), world.ca.anchors(), START)
    assert leaf.public_key() == key.public_key()


async def test_nothing_is_copied_from_the_csr() -> None:
    """CA:TRUE, usages and policies of a CSR stay where they are."""
    world = await make_world()
    asked = (
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
        x509.CertificatePolicies(
            [x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.1"), None)]
        ),
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
    )
    order = await world.ca.open_order(request())
    order = await world.ca.finalize(order, make_csr(KEY, extra=asked))
    leaf = x509.load_pem_x509_certificates(await world.ca.download(order))[0]
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert basic.ca is False
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]
    for absent in (x509.CertificatePolicies, x509.TLSFeature):
        with pytest.raises(x509.ExtensionNotFound):
            leaf.extensions.get_extension_for_class(absent)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param(("www.corp.example", "more.corp.example"), "beyond the order", id="more"),
        pytest.param(("more.corp.example",), "lacks www.corp.example", id="other"),
    ],
)
async def test_csr_for_other_names_is_refused(names: tuple[str, ...], reason: str) -> None:
    """As badCSR, and the order stays ready."""
    world = await make_world()
    order = await world.ca.open_order(request())
    with pytest.raises(Refused, match=reason) as caught:
        await world.ca.finalize(order, make_csr(KEY, *names))
    assert refusal(caught) is ProblemType.BAD_CSR
    assert (await world.ca.read_order(order.url)).status is OrderStatus.READY


async def test_nonsense_csr_is_refused() -> None:
    """What does not parse is the client's to mend."""
    world = await make_world()
    order = await world.ca.open_order(request())
    with pytest.raises(Refused) as caught:
        await world.ca.finalize(order, b"nonsense")
    assert refusal(caught) is ProblemType.BAD_CSR


async def test_serials_differ_and_are_kept() -> None:
    """Each order its own certificate, each in the ledger under its serial."""
    world = await make_world()
    leaves = [(await issue(world.ca, request(reference=f"work{n}")))[0] for n in range(5)]
    serials = {leaf.serial_number for leaf in leaves}
    assert len(serials) == 5
    assert {int(record.serial, 16) for record in world.store.records.values()} == serials


# ------------------------------------------------------------------- one order, one certificate


async def test_second_finalize_returns_the_same_certificate() -> None:
    """Also for another CSR of the same key, and after a restart."""
    world = await make_world()
    first = await issue(world.ca, request())
    order = await world.ca.read_order((await world.ca.open_order(request())).url)
    assert order.status is OrderStatus.VALID
    for ca in (world.ca, world.restarted()):
        again = await ca.finalize(order, make_csr(KEY))
        assert x509.load_pem_x509_certificates(await ca.download(again)) == first
    assert len(world.store.records) == 1


async def test_finalize_with_another_key_is_refused() -> None:
    """An order gives one certificate, for the first key."""
    world = await make_world()
    await issue(world.ca, request())
    order = await world.ca.open_order(request())
    with pytest.raises(Refused, match="finalized with another key") as caught:
        await world.ca.finalize(order, make_csr(OTHER_KEY))
    assert refusal(caught) is ProblemType.ORDER_NOT_READY


@pytest.mark.parametrize("keys", [[KEY] * 8, [KEY, OTHER_KEY] * 4], ids=["one-key", "two-keys"])
async def test_simultaneous_finalizes_give_one_certificate(keys: list[PrivateKey]) -> None:
    """Eight at once: all that succeed have the same certificate, the ledger one."""
    world = await make_world()
    order = await world.ca.open_order(request())
    results = await asyncio.gather(
        *(world.ca.finalize(order, make_csr(key)) for key in keys), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, Refused)]
    assert len(refused) == (4 if OTHER_KEY in keys else 0)
    assert len(world.store.records) == 1
    (record,) = world.store.records.values()
    leaf = x509.load_pem_x509_certificates(await world.ca.download(order))[0]
    assert leaf.public_bytes(Encoding.DER) == record.certificate_der


async def test_order_survives_a_restart() -> None:
    """Opened before, finalized after: names, profile and end are those asked for."""
    world = await make_world()
    end = START + 3 * DAY
    order = await world.ca.open_order(request(profile="client", not_after=end))
    ca = world.restarted()
    again = await ca.read_order(order.url)
    assert again == order
    again = await ca.finalize(again, make_csr(KEY))
    leaf = x509.load_pem_x509_certificates(await ca.download(again))[0]
    assert leaf.not_valid_after_utc == end
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


async def test_lost_order_is_found_again() -> None:
    """A lost answer to newOrder leads to the same order; one that is known is passed over."""
    world = await make_world()
    order = await world.ca.open_order(request())
    assert await world.ca.seek_order(request(), known=[]) == order
    assert await world.ca.open_order(request()) == order
    assert await world.ca.seek_order(request(), known=[order.url]) is None


async def test_orders_of_two_references_are_two() -> None:
    """The same names asked for twice give two orders and two certificates."""
    world = await make_world()
    first = await world.ca.open_order(request(reference="work1"))
    second = await world.ca.open_order(request(reference="work2"))
    assert first.url != second.url
    await issue(world.ca, request(reference="work1"))
    assert (await world.ca.read_order(second.url)).status is OrderStatus.READY


async def test_reference_used_for_other_names_is_noticed() -> None:
    """That would be our own fault, and gives no certificate."""
    world = await make_world()
    await issue(world.ca, request("a.corp.example"))
    order = await world.ca.open_order(request("b.corp.example"))
    with pytest.raises(Broken, match="used for other names"):
        await world.ca.finalize(order, make_csr(KEY, "b.corp.example"))


async def test_unknown_order_is_refused() -> None:
    """Another CA's order can be neither read nor finalized nor downloaded."""
    world = await make_world()
    with pytest.raises(Refused, match="no such order"):
        await world.ca.read_order("builtin:other:work1:e30")


async def test_order_without_certificate_has_nothing_to_download() -> None:
    """Ready is not valid."""
    world = await make_world()
    order = await world.ca.open_order(request())
    with pytest.raises(Refused, match="no certificate yet"):
        await world.ca.download(order)


async def test_failing_signer_leaves_the_order_ready() -> None:
    """Trying later completes it."""
    world = await make_world()
    order = await world.ca.open_order(request())
    world.signer.is_away = True
    with pytest.raises(Unreachable):
        await world.ca.finalize(order, make_csr(KEY))
    assert not world.store.records
    world.signer.is_away = False
    assert (await world.ca.finalize(order, make_csr(KEY))).status is OrderStatus.VALID


# ------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("name", "is_permitted"),
    [
        ("corp.example", True),
        ("a.b.corp.example", True),
        ("*.corp.example", True),
        ("corp.example.evil.net", False),
        ("evilcorp.example", False),
        ("*.example", False),
    ],
)
async def test_names_outside_the_constraints_are_refused(name: str, is_permitted: bool) -> None:
    """Before ordering; a verifier would have refused the certificate anyway."""
    world = await make_world()
    if is_permitted:
        await issue(world.ca, request(name))
        return
    with pytest.raises(Refused, match="permitted names") as caught:
        await world.ca.open_order(request(name))
    assert refusal(caught) is ProblemType.REJECTED_IDENTIFIER


async def test_e_mail_is_certified_where_constraints_permit_it() -> None:
    """A CA that was held to names is not held out to e-mail by saying nothing of it."""
    jane = Identifier(IdentifierType.EMAIL, "jane@corp.example")
    asked = replace(request(), identifiers=(jane,))
    world = await make_world()
    assert "email" not in world.ca.facts().identifier_types
    with pytest.raises(Refused, match="of type email it certifies nothing") as caught:
        await world.ca.open_order(asked)
    assert refusal(caught) is ProblemType.REJECTED_IDENTIFIER
    other = await make_world(permitted=PermittedNames(("corp.example",), mail=("corp.example",)))
    assert other.ca.facts().identifier_types == {"dns", "email"}
    order = await other.ca.open_order(asked)
    assert order is not None
    stray = replace(asked, identifiers=(Identifier(IdentifierType.EMAIL, "jane@a.example"),))
    with pytest.raises(Refused, match="permitted names"):
        await other.ca.open_order(stray)


async def test_constraints_are_looked_at_again_when_signing() -> None:
    """An order opened under another issuer is judged by the one that signs."""
    world = await make_world(permitted=PermittedNames(("corp.example", "lab.example")))
    order = await world.ca.open_order(request("www.lab.example"))
    narrow = await narrower_issuer(world)
    with pytest.raises(Refused, match="permitted names"):
        await world.restarted(IssuerSet(narrow, None, (world.issuing,))).finalize(
            order, make_csr(KEY, "www.lab.example")
        )


async def narrower_issuer(world: CaWorld) -> Authority:
    """Make an issuing CA for corp.example alone."""
    plan = AuthorityPlan(
        key_id="issuing-2",
        subject="CN=Issuing 2,O=Corp",
        lifetime=100 * DAY,
        permitted=PermittedNames(("corp.example",)),
    )
    return await create_issuing(world.signer, world.clock, plan, world.root)


async def test_verifier_would_refuse_what_the_ca_refuses() -> None:
    """The constraints are in the certificate, not only in our own check."""
    world = await make_world()
    leaf, issuing = await issue(world.ca, request())
    unconstrained = await make_world(permitted=PermittedNames(("else.example",)))
    stray, _ = await issue(unconstrained.ca, request("www.else.example"))
    store = Store([world.root.certificate])
    verifier = PolicyBuilder().store(store).time(START)
    verifier.build_server_verifier(x509.DNSName("www.corp.example")).verify(leaf, [issuing])
    with pytest.raises(VerificationError):
        verifier.build_server_verifier(x509.DNSName("www.else.example")).verify(stray, [issuing])


@pytest.mark.parametrize(
    ("profile", "not_after", "expected"),
    [
        pytest.param(None, None, START + 30 * DAY, id="default"),
        pytest.param("client", None, START + 7 * DAY, id="profile"),
        pytest.param(None, START + DAY, START + DAY, id="shorter-asked"),
        pytest.param(None, START + 90 * DAY, START + 90 * DAY, id="longest-asked"),
    ],
)
async def test_end_is_what_was_asked_for_or_the_profile_says(
    profile: str | None, not_after: object, expected: object
) -> None:
    """To the second, with a beginning a minute ago."""
    world = await make_world()
    asked = request(profile=profile, not_after=not_after)  # type: ignore[arg-type]
    leaf, _ = await issue(world.ca, asked)
    assert leaf.not_valid_after_utc == expected
    assert leaf.not_valid_before_utc == START - timedelta(seconds=60)


@pytest.mark.parametrize(
    ("profile", "not_after", "reason"),
    [
        pytest.param(None, START + 90 * DAY + timedelta(seconds=1), "profile's", id="profile"),
        pytest.param("client", START + 8 * DAY, "profile's", id="shorter-profile"),
        pytest.param(None, START, "has passed", id="now"),
        pytest.param(None, START - DAY, "has passed", id="past"),
    ],
)
async def test_end_that_cannot_be_met_is_refused(
    profile: str | None, not_after: object, reason: str
) -> None:
    """Never silently changed (RFC 8555 §7.4)."""
    world = await make_world()
    with pytest.raises(Refused, match=reason) as caught:
        await world.ca.open_order(request(profile=profile, not_after=not_after))  # type: ignore[arg-type]
    assert refusal(caught) is ProblemType.MALFORMED


async def test_nothing_ends_after_its_issuer() -> None:
    """What nobody asked for ends with the issuer; what was asked for beyond it is refused."""
    world = await make_world(lifetime=20 * DAY)
    leaf, issuing = await issue(world.ca, request())
    assert leaf.not_valid_after_utc == issuing.not_valid_after_utc == START + 20 * DAY
    await issue(world.ca, request(reference="work2", not_after=START + 20 * DAY))
    with pytest.raises(Refused, match="this CA ends"):
        await world.ca.open_order(request(not_after=START + 20 * DAY + timedelta(seconds=1)))


async def test_ended_issuer_signs_nothing() -> None:
    """That is for a person to mend, not for the client."""
    world = await make_world(lifetime=20 * DAY)
    order = await world.ca.open_order(request())
    world.clock.advance(20 * DAY)
    with pytest.raises(Broken, match="issuing CA 'issuing-1' ended"):
        await world.ca.finalize(order, make_csr(KEY))
    assert not world.store.records


async def test_end_is_judged_again_at_finalize() -> None:
    """An order that waited too long is refused, not stretched."""
    world = await make_world()
    order = await world.ca.open_order(request(not_after=START + DAY))
    world.clock.advance(DAY)
    with pytest.raises(Refused, match="has passed"):
        await world.ca.finalize(order, make_csr(KEY))


async def test_unknown_profile_is_refused() -> None:
    """With the names of those that there are."""
    world = await make_world()
    with pytest.raises(Refused, match="expected one of client, server") as caught:
        await world.ca.open_order(request(profile="sewer"))
    assert refusal(caught) is ProblemType.INVALID_PROFILE


async def test_weak_key_is_refused() -> None:
    """The CA has a floor of its own."""
    world = await make_world()
    order = await world.ca.open_order(request())
    with pytest.raises(Refused) as caught:
        await world.ca.finalize(order, make_csr(rsa.generate_private_key(65537, 1024)))
    assert refusal(caught) is ProblemType.BAD_PUBLIC_KEY
    await world.ca.finalize(order, make_csr(ed25519.Ed25519PrivateKey.generate()))


@given(
    st.integers(1, 400),
    st.none() | st.integers(1, 400),
    st.sampled_from([None, "server", "client"]),
)
def test_no_certificate_outlives_issuer_or_profile(
    issuer_days: int, asked_days: int | None, profile: str | None
) -> None:
    """Whatever the figures: as asked, or not at all."""

    async def attempt() -> None:
        world = await make_world(lifetime=issuer_days * DAY)
        not_after = None if asked_days is None else START + asked_days * DAY
        try:
            leaf, issuing = await issue(world.ca, request(profile=profile, not_after=not_after))
        except Refused:
            assert asked_days is not None
            return
        longest = PROFILES[profile or "server"].max_lifetime
        assert leaf.not_valid_after_utc <= issuing.not_valid_after_utc
        assert leaf.not_valid_after_utc <= START + longest
        assert not_after is None or leaf.not_valid_after_utc == not_after

    asyncio.run(attempt())


# --------------------------------------------------------------------------------- revocation


async def crl_der(ca: BuiltinCa, issuer_key_id: str) -> bytes | None:
    """Return the revocation list of an issuer."""
    crl = await ca.current_crl(issuer_key_id)
    return None if crl is None else crl.der


async def test_revoked_certificate_is_listed_at_once() -> None:
    """The list that is served after the revocation names it, with its reason."""
    world = await make_world()
    before = await crl_der(world.ca, "issuing-1")
    leaf, _ = await issue(world.ca, request())
    await world.ca.revoke(leaf.public_bytes(Encoding.DER), 4)
    after = await crl_der(world.ca, "issuing-1")
    assert before is not None
    assert after is not None
    crl = x509.load_der_x509_crl(after)
    entry = crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
    assert entry is not None
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.superseded
    numbers = [
        x509.load_der_x509_crl(der).extensions.get_extension_for_class(x509.CRLNumber).value
        for der in (before, after)
    ]
    assert numbers[0].crl_number < numbers[1].crl_number


async def test_revoking_twice_changes_nothing() -> None:
    """The first time and reason stay, and it is no error."""
    world = await make_world()
    leaf, _ = await issue(world.ca, request())
    await world.ca.revoke(leaf.public_bytes(Encoding.DER), 1)
    world.clock.advance(DAY)
    await world.ca.revoke(leaf.public_bytes(Encoding.DER), 4)
    (record,) = world.store.records.values()
    assert (record.revoked_at, record.revocation_reason) == (START, 1)


async def test_revocation_survives_a_signer_that_is_away() -> None:
    """The ledger has it; asked again, the list is signed too."""
    world = await make_world()
    leaf, _ = await issue(world.ca, request())
    der = leaf.public_bytes(Encoding.DER)
    world.signer.is_away = True
    with pytest.raises(Unreachable):
        await world.ca.revoke(der, 4)
    world.signer.is_away = False
    await world.ca.revoke(der, 4)
    crl = await world.ca.current_crl("issuing-1")
    assert crl is not None
    parsed = x509.load_der_x509_crl(crl.der)
    assert parsed.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


@pytest.mark.parametrize("reason", [-1, 2, 6, 7, 8, 10, 11])
async def test_reason_that_an_end_entity_cannot_have_is_refused(reason: int) -> None:
    """As badRevocationReason, and nothing is revoked."""
    world = await make_world()
    leaf, _ = await issue(world.ca, request())
    with pytest.raises(Refused) as caught:
        await world.ca.revoke(leaf.public_bytes(Encoding.DER), reason)
    assert refusal(caught) is ProblemType.BAD_REVOCATION_REASON
    (record,) = world.store.records.values()
    assert record.revoked_at is None


async def test_certificate_of_another_ca_is_not_revoked() -> None:
    """Not even one that carries a serial of ours."""
    world, other = await make_world(), await make_world()
    leaf, _ = await issue(world.ca, request())
    stray, _ = await issue(other.ca, request())
    (record,) = other.store.records.values()
    forged = CaCertificateRecord(
        ca="local",
        order_ref="forged",
        serial=f"{stray.serial_number:x}",
        certificate_der=leaf.public_bytes(Encoding.DER),
        issuer_key_id="issuing-1",
        not_after=record.not_after,
        issued_at=record.issued_at,
    )
    await world.store.record_ca_certificate(forged)
    for der in (stray.public_bytes(Encoding.DER), b"nonsense"):
        with pytest.raises(Refused, match="none of this CA's") as caught:
            await world.ca.revoke(der, 4)
        assert refusal(caught) is ProblemType.UNAUTHORIZED
    assert all(kept.revoked_at is None for kept in world.store.records.values())


# ------------------------------------------------------------------------ beside the order


async def test_issuers_are_published_and_strangers_are_not() -> None:
    """Certificates and lists by the key's name; nothing for a name that is not ours."""
    world = await make_world()
    assert world.ca.find_issuer("issuing-1") == world.issuing
    assert world.ca.find_issuer("root") is None
    assert await crl_der(world.ca, "root") is None


async def test_next_issuer_is_published_before_it_signs_and_a_past_one_after() -> None:
    """Current and next live beside each other; changing over keeps old chains whole."""
    world = await make_world()
    first, _ = await issue(world.ca, request())
    second = await narrower_issuer(world)
    ca = world.restarted(IssuerSet(world.issuing, second))
    assert ca.find_issuer("issuing-2") == second
    assert await crl_der(ca, "issuing-2") is not None
    assert (await issue(ca, request(reference="work2")))[1] == world.issuing.certificate
    ca = world.restarted(IssuerSet(second, None, (world.issuing,)))
    assert (await issue(ca, request(reference="work3")))[1] == second.certificate
    order = await ca.read_order((await ca.open_order(request())).url)
    pem = await ca.download(order)
    assert x509.load_pem_x509_certificates(pem) == [first, world.issuing.certificate]
    await ca.revoke(first.public_bytes(Encoding.DER), 4)
    crl = x509.load_der_x509_crl(await crl_der(ca, "issuing-1") or b"")
    assert crl.is_signature_valid(world.issuing.key.public_key)
    assert crl.get_revoked_certificate_by_serial_number(first.serial_number) is not None
    assert ca.anchors() == (world.root.der,)


async def test_running_ca_adopts_other_issuers_in_one_step() -> None:
    """What was revoked before is on the list after, and what is being signed keeps its issuer."""
    world = await make_world()
    first, _ = await issue(world.ca, request())
    second = await narrower_issuer(world)
    signing = asyncio.create_task(issue(world.ca, request(reference="work2")))
    await asyncio.sleep(0)
    world.ca.adopt(IssuerSet(second, None, (world.issuing,)))
    _, under = await signing
    assert under in (world.issuing.certificate, second.certificate)
    assert (await issue(world.ca, request(reference="work3")))[1] == second.certificate
    await world.ca.revoke(first.public_bytes(Encoding.DER), 4)
    crl = x509.load_der_x509_crl(await crl_der(world.ca, "issuing-1") or b"")
    assert crl.get_revoked_certificate_by_serial_number(first.serial_number) is not None


async def test_issuer_that_was_retired_while_it_signed_signs_nothing() -> None:
    """The ledger does not take it, and the order gets a certificate of the issuer that follows."""
    world = await make_world()
    second = await narrower_issuer(world)
    world.store.closed.add("issuing-1")
    world.store.on_closed = lambda: world.ca.adopt(IssuerSet(second))
    assert (await issue(world.ca, request()))[1] == second.certificate


async def test_retired_issuer_stays_published() -> None:
    """Its certificate, in chains too, and its last list; no other is signed."""
    world = await make_world()
    first, _ = await issue(world.ca, request())
    last = await world.ca.current_crl("issuing-1")
    assert last is not None
    second = await narrower_issuer(world)
    world.ca.adopt(IssuerSet(second, retired=(RetiredIssuer(world.issuing, last.der),)))
    del world.signer.keys["issuing-1"]
    world.clock.advance(400 * DAY)
    shown = await world.ca.current_crl("issuing-1")
    assert shown is not None
    assert (shown.der, shown.number, shown.next_update) == (last.der, last.number, last.next_update)
    assert world.ca.find_issuer("issuing-1") == world.issuing
    order = await world.ca.read_order(order_url("local", request()))
    pem = await world.ca.download(order)
    assert x509.load_pem_x509_certificates(pem) == [first, world.issuing.certificate]
    assert world.ca.anchors() == (world.root.der,)


async def test_chain_of_an_issuer_that_is_gone_is_our_own_fault() -> None:
    """A past issuer has to stay configured for as long as its certificates run."""
    world = await make_world()
    await issue(world.ca, request())
    ca = world.restarted(IssuerSet(await narrower_issuer(world)))
    order = await ca.open_order(request())
    with pytest.raises(Broken, match="'issuing-1' of a certificate is not configured"):
        await ca.download(order)


async def test_own_key_is_certified_without_a_csr() -> None:
    """For the broker's own TLS: names that nobody could ask for, and the same one twice."""
    world = await make_world(permitted=PermittedNames(("localhost",)))
    asked = UpstreamRequest(
        reference="serve", identifiers=dns("localhost"), profile=None, not_after=None
    )
    first = await world.ca.certify(asked, spki(KEY))
    assert await world.ca.certify(asked, spki(KEY)) == first
    leaf, issuing = x509.load_pem_x509_certificates(first)
    leaf.verify_directly_issued_by(issuing)
    assert leaf.public_key() == KEY.public_key()
    with pytest.raises(Refused, match="another key"):
        await world.ca.certify(asked, spki(OTHER_KEY))
    address = (Identifier(IdentifierType.IP, "127.0.0.1"),)
    with pytest.raises(Refused, match="excluded names"):
        await world.ca.certify(
            UpstreamRequest(reference="serve2", identifiers=address, profile=None, not_after=None),
            spki(KEY),
        )


async def test_facts_tell_what_the_ca_can_do_now() -> None:
    """Profiles with their lifetimes, shortened by the issuer's end as it comes near."""
    world = await make_world(lifetime=60 * DAY)
    facts = world.ca.facts()
    assert (facts.name, facts.honours_not_after, facts.is_ct_logged) == ("local", True, False)
    assert facts.max_lifetime == 60 * DAY
    assert {name: lifetimes[0].lifetime for name, lifetimes in facts.profiles.items()} == {
        "server": 30 * DAY,
        "client": 7 * DAY,
    }
    world.clock.advance(50 * DAY)
    facts = world.ca.facts()
    assert facts.default_lifetimes[0].lifetime == 10 * DAY
    assert facts.backdate_tolerance == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"name": "a:b"}, "name", id="name-with-colon"),
        pytest.param({"base_url": "https://ca.corp.example"}, "base URL", id="https"),
        pytest.param({"base_url": "http://ca.corp.example/"}, "base URL", id="slash"),
        pytest.param({"default_profile": "none"}, "default profile", id="unknown-default"),
    ],
)
async def test_contradictory_settings_are_refused(changes: dict[str, object], reason: str) -> None:
    """When the configuration is read."""
    world = await make_world()
    usual: dict[str, object] = {
        "name": "local",
        "base_url": BASE_URL,
        "profiles": PROFILES,
        "default_profile": "server",
        "issuers": IssuerSet(world.issuing),
    }
    BuiltinSettings(**usual)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=reason):
        BuiltinSettings(**(usual | changes))  # type: ignore[arg-type]
