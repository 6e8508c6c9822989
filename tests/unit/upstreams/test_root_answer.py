"""What an offline root's answer has to say before it becomes an issuing CA."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken
from broker.upstreams.authority import Authority, AuthorityPlan, issuing_csr
from broker.upstreams.root_answer import accept_issuing
from tests.fakes.builtin_ca import DAY
from tests.fakes.clock import START, FakeClock
from tests.fakes.signer import FakeSigner

KINDS = ["ec-p256", "ec-p384", "rsa-2048"]
ISSUING = AuthorityPlan(key_id="issuing-1", subject="CN=Issuing,O=Corp", lifetime=365 * DAY)

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
