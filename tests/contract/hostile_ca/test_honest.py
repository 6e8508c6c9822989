"""Where its script says nothing, the hostile CA is a plain and strict one."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.contract.hostile_ca.steps import NAME, READY, leaf_of
from tests.fakes.acme_client import AcmeClient, make_csr
from tests.fakes.hostile_ca import HostileCa, Resource, Script
from tests.fakes.hostile_ca.envelope import b64
from tests.peers import process
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed, ExternalAccount


class TestHonest:
    """Without a script it is a plain and strict CA."""

    async def test_an_order_goes_all_the_way(self, tmp_path: Path) -> None:
        """Challenge, finalize, chain, revocation; each of them in the ledger."""
        async with (
            HostileCa(tmp_path) as ca,
            AcmeClient(ca.directory_url, ca.ca_bundle) as client,
        ):
            await client.register()
            answer = await client.order(NAME, f"*.{NAME}")
            order = answer.json()
            assert (answer.status, order["status"]) == (201, "pending")
            early = await client.finalize(order, make_csr([NAME, f"*.{NAME}"]))
            assert (early.status, early.problem) == (403, "orderNotReady")
            await client.prove(order)
            key = ec.generate_private_key(ec.SECP256R1())
            final = await client.finalize(order, make_csr([NAME, f"*.{NAME}"], key))
            body = (await client.post(final.json()["certificate"])).body
            leaf, middle = x509.load_pem_x509_certificates(body)
            assert leaf.public_key() == key.public_key()
            leaf.verify_directly_issued_by(middle)
            middle.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.root_pem()))
            order_id = answer.headers["Location"].rpartition("/")[2]
            assert [each.order_id for each in ca.ledger.orders] == [order_id]
            assert [each.order_id for each in ca.ledger.finalizes] == [order_id]
            assert ca.ledger.certificates_of(order_id)[0].serial_hex == f"{leaf.serial_number:x}"
            assert ca.ledger.finalizes[0].csr_sha256 == ca.ledger.certificates[0].csr_sha256
            assert ca.ledger.count(Resource.FINALIZE, order_id) == 2
            assert ca.ledger.count(Resource.AUTHORIZATION, order_id) == 2
            listing = (await client.post(f"{ca.base_url}/orders/{ca.ledger.accounts[0]}")).json()
            assert listing == {"orders": [answer.headers["Location"]]}

    async def test_revocation_needs_a_right_and_happens_once(
        self, ca: HostileCa, client: AcmeClient
    ) -> None:
        """The owner may, a stranger may not, and twice is once too many."""
        leaf = await leaf_of(client)
        url = ca.resources.link(Resource.REVOKE)
        payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": 4}
        async with AcmeClient(ca.directory_url, ca.ca_bundle) as stranger:
            await stranger.register()
            assert (await stranger.post(url, payload)).problem == "unauthorized"
        assert ca.ledger.revocations == []
        assert (await client.post(url, payload)).status == 200
        assert (await client.post(url, payload)).problem == "alreadyRevoked"
        assert [each.reason for each in ca.ledger.revocations] == [4]

    @pytest.mark.peers
    async def test_certbot_gets_a_certificate(self, tmp_path: Path) -> None:
        """A stock client finds nothing to complain about."""
        async with HostileCa(tmp_path / "ca") as ca:
            certbot = Certbot(tmp_path / "certbot", ca.directory_url, ca.ca_bundle)
            obtained = await certbot.certonly_standalone([NAME], http_port=process.free_port())
            assert obtained.names() == [NAME]
            await certbot.revoke(obtained)
            assert len(ca.ledger.revocations) == 1


class TestStrict:
    """It refuses what a real CA refuses, so that a sloppy client fails here too."""

    async def test_a_wrong_signature(self, ca: HostileCa, client: AcmeClient) -> None:
        """One flipped bit is enough; the same request signed well passes."""
        url = ca.resources.link(Resource.NEW_ORDER)
        payload = {"identifiers": [{"type": "dns", "value": NAME}]}
        assert (await client.post(url, payload, spoil_signature=True)).problem == "malformed"
        assert ca.ledger.orders == []
        assert (await client.post(url, payload)).status == 201

    @pytest.mark.parametrize(
        ("header", "problem"),
        [
            pytest.param({"nonce": "stale"}, "badNonce", id="nonce"),
            pytest.param({"url": "https://127.0.0.1/newOrder"}, "unauthorized", id="url"),
            pytest.param(
                {"alg": "ES384"}, "badSignatureAlgorithm", id="algorithm-of-another-curve"
            ),
            pytest.param({"alg": "none"}, "badSignatureAlgorithm", id="algorithm-none"),
            pytest.param({"kid": "https://127.0.0.1/account/x"}, "accountDoesNotExist", id="kid"),
        ],
    )
    async def test_a_wrong_header(
        self, ca: HostileCa, client: AcmeClient, header: dict[str, str], problem: str
    ) -> None:
        """Each protected member is looked at."""
        payload = {"identifiers": [{"type": "dns", "value": NAME}]}
        answer = await client.post(client.directory["newOrder"], payload, header=header)
        assert answer.problem == problem
        assert ca.ledger.orders == []

    async def test_a_nonce_used_twice(self, client: AcmeClient) -> None:
        """The second use of a nonce that was good is refused."""
        payload = {"identifiers": [{"type": "dns", "value": NAME}]}
        nonce = {"nonce": await client.fresh_nonce()}
        first = await client.post(client.directory["newOrder"], payload, header=nonce)
        second = await client.post(client.directory["newOrder"], payload, header=nonce)
        assert (first.status, second.problem) == (201, "badNonce")

    async def test_another_account_sees_nothing(self, ca: HostileCa, client: AcmeClient) -> None:
        """Order, authorization and certificate belong to who ordered them."""
        answer = await client.order(NAME)
        order = answer.json()
        async with AcmeClient(ca.directory_url, ca.ca_bundle) as stranger:
            await stranger.register()
            for url in (answer.headers["Location"], *order["authorizations"]):
                assert (await stranger.post(url)).problem == "unauthorized"
                assert (await client.post(url)).status == 200

    async def test_a_csr_with_other_names(self, client: AcmeClient) -> None:
        """The CSR must ask for what was ordered."""
        order = (await client.order(NAME)).json()
        wrong = await client.finalize(order, make_csr(["two.example.test"]))
        assert wrong.problem == "badCSR"
        assert (await client.finalize(order, make_csr([NAME]))).status == 200

    @pytest.mark.peers
    async def test_an_external_account_binding(self, tmp_path: Path) -> None:
        """Certbot with the right MAC key gets in; with another or with none it doesn't."""
        right = ExternalAccount("kid-1", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ")
        wrong = ExternalAccount("kid-1", "d3JvbmctIHdyb25nLSB3cm9uZy0gd3JvbmctLTEyMzQ")
        script = Script(standing=READY, external_accounts={right.kid: right.hmac_b64url})
        port = process.free_port()

        async with HostileCa(tmp_path / "ca", script) as ca:
            where = (ca.directory_url, ca.ca_bundle)
            bound = Certbot(tmp_path / "bound", *where, external_account=right)
            assert (await bound.certonly_standalone([NAME], http_port=port)).names() == [NAME]
            for number, binding in enumerate((wrong, None)):
                other = Certbot(tmp_path / str(number), *where, external_account=binding)
                with pytest.raises(ClientFailed, match=r"(?i)external account binding|externalAcc"):
                    await other.certonly_standalone([NAME], http_port=port)
            assert len(ca.ledger.accounts) == 1
