"""Roots and issuing CAs: what they say, and what an offline root's answer has to say."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken, Conflict
from broker.upstreams.authority import (
    Authority,
    AuthorityPlan,
    IssuerSet,
    PermittedNames,
    accept_issuing,
    create_issuing,
    create_root,
    issuing_csr,
    new_serial,
)
from tests.fakes.builtin_ca import DAY, dns, make_world
from tests.fakes.clock import START, FakeClock
from tests.fakes.signer import FakeSigner

KINDS = ["ec-p256", "ec-p384", "rsa-2048"]
ROOT = AuthorityPlan(key_id="root", subject="CN=Root,O=Corp", lifetime=3650 * DAY)
ISSUING = AuthorityPlan(key_id="issuing-1", subject="CN=Issuing,O=Corp", lifetime=365 * DAY)


@pytest.mark.parametrize("kind", KINDS)
async def test_root_says_what_a_root_says(kind: str) -> None:
    """Path length one, critical, both signing usages and no other, its own key's identifier."""
    root = await create_root(FakeSigner(), FakeClock(), replace(ROOT, kind=kind))
    root.certificate.verify_directly_issued_by(root.certificate)
    extensions = root.certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value) == (True, x509.BasicConstraints(ca=True, path_length=1))
    assert usages(extensions) == {"key_cert_sign", "crl_sign"}
    assert root.certificate.not_valid_after_utc == START + ROOT.lifetime
    assert root.certificate.not_valid_before_utc == START - timedelta(seconds=60)


def usages(extensions: x509.Extensions) -> set[str]:
    """Return the key usages that are set; the extension has to be critical."""
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    named = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
    named += ["key_agreement", "key_cert_sign", "crl_sign"]
    return {name for name in named if getattr(usage.value, name)}


@pytest.mark.parametrize("kind", KINDS)
async def test_issuing_ca_says_what_an_issuing_ca_says(kind: str) -> None:
    """Path length zero, critical name constraints, and a pointer back to the root's key."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(signer, clock, replace(ROOT, kind=kind))
    plan = replace(ISSUING, kind=kind, permitted=PermittedNames(("corp.example",)))
    issuing = await create_issuing(signer, clock, plan, root)
    issuing.certificate.verify_directly_issued_by(root.certificate)
    extensions = issuing.certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert usages(extensions) == {"key_cert_sign", "crl_sign"}
    constraints = extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName("corp.example")]
    pointer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert pointer == root.authority_key_identifier


async def test_constraints_of_the_root_hold_below_it() -> None:
    """A name has to pass both certificates of the path."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(
        signer, clock, replace(ROOT, permitted=PermittedNames(("corp.example",)))
    )
    issuing = await create_issuing(signer, clock, ISSUING, root)
    assert issuing.check_names(dns("www.corp.example")) is None
    fault = issuing.check_names(dns("www.corp.example", "www.else.example"))
    assert fault is not None
    assert "www.else.example" in fault


async def test_issuing_ca_is_not_permitted_more_than_its_root() -> None:
    """Constraints that could never be met are a typing error, and told before a key is made."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(
        signer, clock, replace(ROOT, permitted=PermittedNames(("corp.example",)))
    )
    plan = replace(ISSUING, permitted=PermittedNames(("else.example",)))
    with pytest.raises(Broken, match="permitted more than its root"):
        await create_issuing(signer, clock, plan, root)
    assert set(signer.keys) == {"root"}


async def test_issuing_ca_does_not_outlive_its_root() -> None:
    """As long as the root is fine, a second longer is not."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(signer, clock, ROOT)
    with pytest.raises(Broken, match="issuing CA would end"):
        await create_issuing(
            signer, clock, replace(ISSUING, lifetime=ROOT.lifetime + timedelta(seconds=1)), root
        )
    issuing = await create_issuing(signer, clock, replace(ISSUING, lifetime=ROOT.lifetime), root)
    assert issuing.not_after == root.not_after


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"key_id": "../root"}, "key id", id="path-as-key-id"),
        pytest.param({"key_id": "Root"}, "key id", id="upper-case-key-id"),
        pytest.param({"key_id": "a" * 65}, "key id", id="long-key-id"),
        pytest.param({"subject": "Root"}, "is not of the form", id="subject-without-attribute"),
        pytest.param({"subject": ""}, "subject is empty", id="no-subject"),
        pytest.param({"lifetime": timedelta(0)}, "lifetime", id="no-lifetime"),
        pytest.param({"lifetime": -DAY}, "lifetime", id="negative-lifetime"),
        pytest.param({"permitted": PermittedNames(("a b",))}, "no DNS name", id="bad-suffix"),
    ],
)
async def test_impossible_plan_is_refused(changes: dict[str, object], reason: str) -> None:
    """With a sentence for the operator, and without a key left behind."""
    signer = FakeSigner()
    plan = replace(ROOT, **changes)  # type: ignore[arg-type]
    with pytest.raises(Broken, match=reason):
        await create_root(signer, FakeClock(), plan)
    assert not signer.keys


async def test_root_and_issuing_ca_have_different_names() -> None:
    """With one name for both, verifiers cannot tell whose signature to look for."""
    signer, clock = FakeSigner(), FakeClock()
    root = await create_root(signer, clock, ROOT)
    with pytest.raises(Broken, match="would both be called"):
        await create_issuing(signer, clock, replace(ISSUING, subject=ROOT.subject), root)


async def test_existing_key_is_never_taken_over() -> None:
    """A root under a key that something else uses would sign for it."""
    signer, clock = FakeSigner(), FakeClock()
    await create_root(signer, clock, ROOT)
    with pytest.raises(Conflict):
        await create_root(signer, clock, ROOT)


def test_serials_are_positive_and_fit_twenty_octets() -> None:
    """RFC 5280 §4.1.2.2; and they are not the same twice."""
    serials = [new_serial() for _ in range(200)]
    assert all(0 < serial < 2**159 for serial in serials)
    assert max(serials) > 2**150
    assert len(set(serials)) == 200


async def test_issuers_are_found_by_their_key() -> None:
    """Current, next and past ones; current first."""
    world = await make_world()
    following = Authority("issuing-2", world.root.certificate)
    gone = Authority("issuing-0", world.root.certificate)
    issuers = IssuerSet(world.issuing, following, (gone,))
    assert [issuer.key_id for issuer in issuers] == ["issuing-1", "issuing-2", "issuing-0"]
    assert issuers.find("issuing-2") is following
    assert issuers.find("issuing-3") is None


# ------------------------------------------------------------------------- offline root

PATH_LENGTH_0 = x509.BasicConstraints(ca=True, path_length=0)


class OfflineRoot:
    """A root that somebody keeps elsewhere, and which signs what it likes."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.name = x509.Name.from_rfc4514_string("CN=Offline Root")
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(START - DAY)
            .not_valid_after(START + 1000 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA384())
        )

    def answer(
        self,
        csr_pem: bytes,
        *,
        basic: x509.BasicConstraints | None = PATH_LENGTH_0,
        has_usage: bool = True,
        crl_sign: bool = True,
        has_subject_key: bool = True,
        starts: timedelta = -DAY,
        ends: timedelta = 365 * DAY,
    ) -> bytes:
        """Sign a request."""
        csr = x509.load_pem_x509_csr(csr_pem)
        assert csr.is_signature_valid
        builder = (
            x509.CertificateBuilder()
            .subject_name(csr.subject)
            .issuer_name(self.name)
            .public_key(csr.public_key())
            .serial_number(2)
            .not_valid_before(START + starts)
            .not_valid_after(START + ends)
        )
        if basic is not None:
            builder = builder.add_extension(basic, critical=True)
        if has_usage:
            usage = x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=crl_sign,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        if has_subject_key:
            subject_key = x509.SubjectKeyIdentifier.from_public_key(csr.public_key())
            builder = builder.add_extension(subject_key, critical=False)
        return builder.sign(self.key, hashes.SHA384()).public_bytes(Encoding.PEM)


async def accept(signer: FakeSigner, root: OfflineRoot, pem: bytes) -> Authority:
    """Accept an answer that is meant for issuing-1."""
    return await accept_issuing(
        pem, key_id="issuing-1", signer=signer, clock=FakeClock(), anchors=[root.certificate]
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_answer_of_an_offline_root_is_accepted(kind: str) -> None:
    """Request, signature elsewhere, acceptance: an issuing CA under that root."""
    signer, root = FakeSigner(), OfflineRoot()
    csr_pem = await issuing_csr(signer, replace(ISSUING, kind=kind))
    bundle = root.answer(csr_pem) + root.certificate.public_bytes(Encoding.PEM)
    issuing = await accept(signer, root, bundle)
    assert issuing.parent == root.certificate
    assert issuing.key.spki_der == await signer.public_key("issuing-1")
    assert issuing.not_after == START + 365 * DAY


async def test_request_can_be_written_again() -> None:
    """A lost file costs nothing: the same key is asked for."""
    signer = FakeSigner()
    first, second = [x509.load_pem_x509_csr(await issuing_csr(signer, ISSUING)) for _ in range(2)]
    assert first.public_key() == second.public_key()
    assert list(signer.keys) == ["issuing-1"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(
            lambda root, csr: root.answer(csr, basic=None), "lacks extension", id="no-constraints"
        ),
        pytest.param(
            lambda root, csr: root.answer(
                csr, basic=x509.BasicConstraints(ca=False, path_length=None)
            ),
            "no CA certificate",
            id="not-a-ca",
        ),
        pytest.param(
            lambda root, csr: root.answer(
                csr, basic=x509.BasicConstraints(ca=True, path_length=None)
            ),
            "path length None, expected 0",
            id="no-path-length",
        ),
        pytest.param(
            lambda root, csr: root.answer(csr, basic=x509.BasicConstraints(ca=True, path_length=1)),
            "path length 1, expected 0",
            id="long-path",
        ),
        pytest.param(
            lambda root, csr: root.answer(csr, has_usage=False), "lacks extension", id="no-usage"
        ),
        pytest.param(
            lambda root, csr: root.answer(csr, crl_sign=False), "cRLSign", id="cannot-sign-crls"
        ),
        pytest.param(
            lambda root, csr: root.answer(csr, has_subject_key=False),
            "lacks extension",
            id="no-subject-key",
        ),
        pytest.param(lambda root, csr: root.answer(csr, ends=-DAY / 2), "not now", id="ended"),
        pytest.param(lambda root, csr: root.answer(csr, starts=DAY), "not now", id="future"),
        pytest.param(
            lambda _root, csr: OfflineRoot().answer(csr), "not signed by any", id="another-root"
        ),
        pytest.param(
            lambda root, _csr: root.certificate.public_bytes(Encoding.PEM),
            "another key",
            id="the-root-itself",
        ),
        pytest.param(lambda _root, csr: csr, "does not parse", id="the-request"),
        pytest.param(lambda _root, _csr: b"", "does not parse", id="nothing"),
    ],
)
async def test_unsound_answer_is_refused(
    answer: Callable[[OfflineRoot, bytes], bytes], reason: str
) -> None:
    """With a sentence that tells the root's keeper what to do better."""
    signer, root = FakeSigner(), OfflineRoot()
    csr_pem = await issuing_csr(signer, ISSUING)
    with pytest.raises(Broken, match=reason):
        await accept(signer, root, answer(root, csr_pem))


async def test_answer_for_another_key_of_ours_is_refused() -> None:
    """Two requests waiting at once are not mixed up."""
    signer, root = FakeSigner(), OfflineRoot()
    await issuing_csr(signer, ISSUING)
    other = await issuing_csr(signer, replace(ISSUING, key_id="issuing-2"))
    with pytest.raises(Broken, match="another key than 'issuing-1'"):
        await accept(signer, root, root.answer(other))
