"""What is wrong with certificates and chains under each switch."""

import datetime

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.contract.hostile_ca.steps import NAME, behave, leaf_of, obtain
from tests.fakes.acme_client import AcmeClient
from tests.fakes.hostile_ca import Chain, HostileCa, NotAfter
from tests.peers import authority

DAY = datetime.timedelta(days=1)


class TestCertificates:
    """What is wrong with certificates."""

    @pytest.mark.parametrize(
        ("mode", "days"),
        [
            pytest.param(NotAfter.HONOUR, 10, id="honoured"),
            pytest.param(NotAfter.IGNORE, 90, id="ignored"),
        ],
    )
    async def test_a_wanted_end(
        self, ca: HostileCa, client: AcmeClient, mode: NotAfter, days: int
    ) -> None:
        """NotAfter is heeded or not."""
        behave(ca, not_after=mode)
        end = (authority.real_now() + 10 * DAY).replace(microsecond=0)
        leaf = await leaf_of(client, notAfter=end.isoformat())
        left = leaf.not_valid_after_utc - authority.real_now()
        assert abs(left - days * DAY) < datetime.timedelta(minutes=1)

    async def test_a_wanted_end_refused(self, ca: HostileCa, client: AcmeClient) -> None:
        """NotAfter makes newOrder fail; without one it passes."""
        behave(ca, not_after=NotAfter.REFUSE)
        assert (await client.order(NAME, notAfter="2099-01-01T00:00:00Z")).problem == "malformed"
        assert (await client.order(NAME)).status == 201

    async def test_too_long(self, ca: HostileCa, client: AcmeClient) -> None:
        """An end past the one that was asked for and promised."""
        behave(ca, extra_lifetime_seconds=86_400)
        end = (authority.real_now() + 10 * DAY).replace(microsecond=0)
        leaf = await leaf_of(client, notAfter=end.isoformat())
        assert leaf.not_valid_after_utc == end + DAY

    async def test_already_expired(self, ca: HostileCa, client: AcmeClient) -> None:
        """An end in the past."""
        behave(ca, ends_in_seconds=-60)
        assert (await leaf_of(client)).not_valid_after_utc < authority.real_now()

    async def test_not_valid_yet(self, ca: HostileCa, client: AcmeClient) -> None:
        """A start in the future."""
        behave(ca, starts_in_seconds=86_400)
        assert (await leaf_of(client)).not_valid_before_utc > authority.real_now()

    @pytest.mark.parametrize("other", [True, False])
    async def test_another_key(self, ca: HostileCa, client: AcmeClient, other: bool) -> None:
        """A key that is not the CSR's, where told; the CSR's where not."""
        behave(ca, other_key=other)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = await leaf_of(client, key=key)
        assert (leaf.public_key() != key.public_key()) is other

    async def test_names_added_and_left_out(self, ca: HostileCa, client: AcmeClient) -> None:
        """Names nobody ordered, and ordered names that are missing."""
        behave(ca, extra_names=("evil.test",), missing_names=(NAME,))
        leaf = await leaf_of(client, NAME, "two.example.test")
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert san.get_values_for_type(x509.DNSName) == ["two.example.test", "evil.test"]

    async def test_a_leaf_that_is_a_ca(self, ca: HostileCa, client: AcmeClient) -> None:
        """CA:TRUE with the usage to match."""
        behave(ca, is_ca=True)
        found = (await leaf_of(client)).extensions
        assert found.get_extension_for_class(x509.BasicConstraints).value.ca
        assert found.get_extension_for_class(x509.KeyUsage).value.key_cert_sign

    async def test_extensions_added(self, ca: HostileCa, client: AcmeClient) -> None:
        """Another extended key usage, and an extension nobody knows."""
        usage = ExtendedKeyUsageOID.CODE_SIGNING.dotted_string
        behave(ca, extended_key_usages=(usage,), extra_extensions={"1.3.6.1.4.1.99999.1": "0500"})
        found = (await leaf_of(client)).extensions
        assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
            ExtendedKeyUsageOID.CODE_SIGNING
        ]
        unknown = found.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"))
        assert isinstance(unknown.value, x509.UnrecognizedExtension)
        assert unknown.value.value == b"\x05\x00"

    async def test_the_same_certificate_again(self, ca: HostileCa, client: AcmeClient) -> None:
        """A second order gets the first one's certificate."""
        behave(ca, same_certificate=True)
        assert await leaf_of(client) == await leaf_of(client)
        assert len(ca.ledger.certificates) == 1

    async def test_a_signature_of_nobody(self, ca: HostileCa, client: AcmeClient) -> None:
        """Issuer's name right, signature another's."""
        behave(ca, self_issued=True)
        leaf, middle = x509.load_pem_x509_certificates((await obtain(client)).body)
        assert leaf.issuer == middle.subject
        with pytest.raises(InvalidSignature):
            leaf.verify_directly_issued_by(middle)

    @pytest.mark.parametrize("shape", list(Chain))
    async def test_each_shape_of_chain(
        self, ca: HostileCa, client: AcmeClient, shape: Chain
    ) -> None:
        """Every shape is what its name says."""
        behave(ca, chain=shape)
        body = (await obtain(client)).body
        issuer = ca.resources.issuer
        names = {
            "hostile root": "root",
            "hostile intermediate": "intermediate",
        }
        pems = x509.load_pem_x509_certificates(body) if b"BEGIN CERT" in body else []
        kinds = [
            names.get(c.subject.rfc4514_string().removeprefix("CN="), "leaf") for c in pems[:4]
        ]
        expected = {
            Chain.HONEST: ["leaf", "intermediate"],
            Chain.INTERMEDIATE_FIRST: ["intermediate", "leaf"],
            Chain.NO_INTERMEDIATE: ["leaf"],
            Chain.WITH_ROOT: ["leaf", "intermediate", "root"],
            Chain.WITH_STRANGER: ["leaf", "intermediate", "intermediate"],
            Chain.WITH_KEY: ["leaf", "intermediate"],
            Chain.FIFTY: ["leaf"] + ["intermediate"] * 3,
            Chain.TEN_MEGABYTES: ["leaf"] + ["intermediate"] * 3,
        }
        assert kinds == expected.get(shape, [])
        assert (b"PRIVATE KEY" in body) is (shape is Chain.WITH_KEY)
        assert (len(pems) == 50) is (shape is Chain.FIFTY)
        assert (len(body) > 10_000_000) is (shape is Chain.TEN_MEGABYTES)
        assert (b"<html>" in body) is (shape is Chain.HTML)
        assert (body == b"") is (shape is Chain.EMPTY)
        assert (body == b"\n") is (shape is Chain.NEWLINE)
        if shape is Chain.WITH_STRANGER:
            assert pems[2] == issuer.stranger.certificate
