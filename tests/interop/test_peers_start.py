"""The harness itself: each real peer starts, does its job, and is gone afterwards.

Penstock is nowhere in here.  When one of these fails, so will the tests that have
Penstock in the middle, and the fault is not Penstock's.
"""

import datetime
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.tsigkeyring
import dns.update
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.peers import authority, process
from tests.peers.bind import Bind
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed, DnsUpdates, ExternalAccount, Obtained
from tests.peers.lego import Lego
from tests.peers.pebble import ChallTestSrv, Pebble, PebbleOptions
from tests.peers.stepca import AcmeProvisioner, StepCa
from tests.peers.token_reviews import TokenReviews
from tests.peers.vault import Vault, make_client_certificate

pytestmark = pytest.mark.peers

ZONE = "example.test"
DELEGATED = "acme.test"

EAB = ExternalAccount("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    """A name server in which every name this file asks for leads to loopback."""
    tmp = tmp_path_factory.mktemp("named")
    with Bind(tmp, zones=[ZONE, DELEGATED]) as server:
        server.add_a(f"*.{ZONE}")
        yield server


@pytest.fixture(scope="module")
def http_port() -> int:
    """The port at which all CAs of this file look for http-01 answers."""
    return process.free_port()


@pytest.fixture(scope="module")
def pebble(
    tmp_path_factory: pytest.TempPathFactory, named: Bind, http_port: int
) -> Iterator[Pebble]:
    """A strict Pebble that asks our name server and takes every good nonce.

    Stock clients give up at the second badNonce in a row; only Penstock has to bear more.
    """
    with Pebble(
        tmp_path_factory.mktemp("pebble"),
        validation_http_port=http_port,
        dns_server=named.address,
        options=PebbleOptions(nonce_reject_percent=0),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def step_ca(
    tmp_path_factory: pytest.TempPathFactory, named: Bind, http_port: int
) -> Iterator[StepCa]:
    """A step-ca that asks our name server."""
    tmp = tmp_path_factory.mktemp("step-ca")
    provisioner = AcmeProvisioner(longest=datetime.timedelta(days=2))
    with StepCa(
        tmp,
        validation_http_port=http_port,
        dns_server=named.address,
        provisioners=[provisioner],
    ) as server:
        yield server


def updates_of(server: Bind) -> DnsUpdates:
    """Return what a client needs for setting records at *server*."""
    return DnsUpdates(server.host, server.port, server.tsig_name, server.tsig_secret_b64)


def check_obtained(obtained: Obtained, names: list[str], ca: Pebble | StepCa) -> None:
    """See that files, names, key and chain of one certificate are as asked for."""
    leaf = obtained.leaf()
    assert obtained.names() == sorted(names)
    issuer = obtained.issuers()[0]
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.root_pem()))
    assert obtained.key is not None
    key = serialization.load_pem_private_key(obtained.key.read_bytes(), None)
    assert key.public_key() == leaf.public_key()


def serial_hex_of(obtained: Obtained) -> str:
    """Return the serial as Pebble prints it."""
    return f"{obtained.leaf().serial_number:x}"


class TestBind:
    """The name server takes signed updates and nothing else."""

    def update(self, server: Bind, name: str, kind: str, value: str, secret: str | None) -> int:
        """Send one update, signed with *secret* or not at all, and return the response code."""
        ring = dns.tsigkeyring.from_text({server.tsig_name: secret}) if secret else None
        zone = ZONE if name.endswith(ZONE) else DELEGATED
        message = dns.update.UpdateMessage(zone, keyring=ring, keyalgorithm=dns.tsig.HMAC_SHA256)
        message.add(dns.name.from_text(name), 1, kind, value)
        return int(dns.query.tcp(message, server.host, timeout=5, port=server.port).rcode())

    def test_a_signed_update_is_served(self, named: Bind) -> None:
        """What the given key sets is answered to everyone."""
        code = self.update(named, f"_t1.{ZONE}", "TXT", '"one"', named.tsig_secret_b64)
        assert code == dns.rcode.NOERROR
        assert named.txt(f"_t1.{ZONE}") == ["one"]

    def test_an_unsigned_update_is_refused(self, named: Bind) -> None:
        """The same update without a signature changes nothing."""
        assert self.update(named, f"_t2.{ZONE}", "TXT", '"one"', None) == dns.rcode.REFUSED
        assert named.txt(f"_t2.{ZONE}") == []

    def test_an_update_under_another_secret_is_refused(self, named: Bind) -> None:
        """The same update under the right name and a wrong secret changes nothing."""
        with pytest.raises(dns.tsig.PeerBadSignature):
            self.update(named, f"_t3.{ZONE}", "TXT", '"one"', "AAAA" * 10 + "AAA=")
        assert named.txt(f"_t3.{ZONE}") == []

    def test_the_given_key_can_set_no_address(self, named: Bind) -> None:
        """An operator grants TXT records for challenges, not the whole zone."""
        code = self.update(named, f"w.{ZONE}", "A", "127.0.0.9", named.tsig_secret_b64)
        assert code == dns.rcode.REFUSED

    def test_a_zone_that_is_not_updatable_refuses_the_given_key(self, tmp_path: Path) -> None:
        """Only the zone that was delegated for challenges takes updates."""
        with Bind(tmp_path, zones=[ZONE, DELEGATED], updatable=[DELEGATED]) as server:
            secret = server.tsig_secret_b64
            assert self.update(server, f"_t.{ZONE}", "TXT", '"1"', secret) == dns.rcode.REFUSED
            assert self.update(server, f"_t.{DELEGATED}", "TXT", '"1"', secret) == 0
            refused, added = server.updates()
            assert "REFUSED" in refused
            assert "adding an RR" in added

    def test_an_alias_into_another_zone_is_followed(self, named: Bind) -> None:
        """A resolver that asks for the alias gets the delegated TXT in the same answer."""
        named.add_cname(f"_acme-challenge.alias.{ZONE}", f"alias.{DELEGATED}")
        named.add(f"alias.{DELEGATED}", "TXT", '"there"')
        answer = named.query(f"_acme-challenge.alias.{ZONE}", "TXT")
        assert '"there"' in answer.to_text()
        assert named.times_asked(f"_acme-challenge.alias.{ZONE}", "TXT") == 1

    def test_other_names_do_not_exist(self, named: Bind) -> None:
        """It asks nobody outside: a name in none of its zones is denied at once."""
        assert named.query("www.example.org", "A").rcode() == dns.rcode.NXDOMAIN


class TestChallTestSrv:
    """The programmable name server says what it is told, and counts."""

    def ask(self, server: ChallTestSrv, name: str, kind: str) -> dns.message.Message:
        """Ask it one question."""
        question = dns.message.make_query(name, kind)
        return dns.query.udp(question, "127.0.0.1", timeout=5, port=server.port)

    def test_records_defaults_failures_and_history(self, tmp_path: Path) -> None:
        """Every lever that tests pull is there and moves something."""
        with ChallTestSrv(tmp_path) as server:
            assert "127.0.0.1" in self.ask(server, "a.test", "A").to_text()
            server.add_a("a.test", ["127.0.0.7"])
            assert "127.0.0.7" in self.ask(server, "a.test", "A").to_text()
            server.set_default_ipv4("127.0.0.8")
            assert "127.0.0.8" in self.ask(server, "b.test", "A").to_text()
            server.set_txt("_acme-challenge.a.test", "value")
            assert '"value"' in self.ask(server, "_acme-challenge.a.test", "TXT").to_text()
            server.clear_txt("_acme-challenge.a.test")
            assert "value" not in self.ask(server, "_acme-challenge.a.test", "TXT").to_text()
            server.add_caa("a.test", [("issue", "ca.test")])
            assert 'issue "ca.test"' in self.ask(server, "a.test", "CAA").to_text()
            server.set_servfail("c.test")
            assert self.ask(server, "c.test", "A").rcode() == dns.rcode.SERVFAIL
            assert len(server.dns_history("a.test")) == 3
            server.clear_history("a.test")
            assert server.dns_history("a.test") == []


class TestLife:
    """A peer's process lives exactly as long as its block."""

    def test_nothing_is_left_after_the_block(self, tmp_path: Path) -> None:
        """The process and its group are gone, and the port is closed."""
        with Bind(tmp_path, zones=[ZONE]) as server:
            pid, port = server.pid, server.port
            assert process.is_group_alive(pid)
        assert not process.is_group_alive(pid)
        assert not process.is_listening(port)

    async def test_it_works_in_an_async_block_too(self, tmp_path: Path) -> None:
        """The same peer, started without holding up the event loop."""
        async with Bind(tmp_path, zones=[ZONE]) as server:
            pid = server.pid
            assert server.records(ZONE, "SOA")
        assert not process.is_group_alive(pid)

    def test_a_peer_that_cannot_start_says_why(self, tmp_path: Path) -> None:
        """The failure carries what the program printed."""
        server = Pebble(
            tmp_path,
            validation_http_port=process.free_port(),
            dns_server="127.0.0.1:53",
            options=PebbleOptions(external_accounts={"kid": "no base64url!"}),
        )
        with pytest.raises(process.PeerFailed, match="ended with status 1") as failure:
            server.start()
        assert "failed to decode base64 URL encoded key" in str(failure.value)


class TestPebble:
    """Stock clients get certificates from Pebble with nothing in between."""

    def test_it_rejects_a_share_of_good_nonces(self, tmp_path: Path) -> None:
        """Unless told otherwise, every seventh good nonce or so is a bad one."""
        port = process.free_port()
        with Pebble(tmp_path, validation_http_port=port, dns_server="127.0.0.1:53") as ca:
            assert "Configured to reject 15% of good nonces" in ca.log_text()
            assert "Running in strict mode" in ca.log_text()

    async def test_certbot_by_http(self, pebble: Pebble, http_port: int, tmp_path: Path) -> None:
        """Obtain, renew, revoke; Pebble's own log agrees about each."""
        certbot = Certbot(tmp_path, pebble.directory_url, pebble.ca_bundle)
        names = [f"cb1.{ZONE}", f"cb2.{ZONE}"]
        first = await certbot.certonly_standalone(names, http_port=http_port)
        check_obtained(first, names, pebble)
        first_serial = serial_hex_of(first)
        await certbot.renew()
        check_obtained(certbot.obtained(names[0]), names, pebble)
        second_serial = serial_hex_of(certbot.obtained(names[0]))
        assert second_serial != first_serial
        issued = [each.serial_hex for each in pebble.issued()]
        assert {first_serial, second_serial} <= set(issued)
        assert not pebble.status(second_serial).is_revoked
        await certbot.revoke(certbot.obtained(names[0]), reason="superseded")
        assert pebble.status(second_serial).is_revoked
        assert pebble.status(second_serial).reason == 4

    async def test_certbot_by_dns(self, pebble: Pebble, named: Bind, tmp_path: Path) -> None:
        """A wildcard, which dns-01 alone can prove."""
        certbot = Certbot(tmp_path, pebble.directory_url, pebble.ca_bundle)
        names = [f"*.wild.{ZONE}", f"wild.{ZONE}"]
        obtained = await certbot.certonly_rfc2136(names, updates_of(named))
        check_obtained(obtained, names, pebble)
        assert named.txt(f"_acme-challenge.wild.{ZONE}") == []

    async def test_certbot_with_a_csr_from_outside(
        self, pebble: Pebble, http_port: int, tmp_path: Path
    ) -> None:
        """The certificate is for the CSR's key, and certbot keeps none."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"csr.{ZONE}"
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        path = tmp_path / "outside.csr"
        path.write_bytes(csr.public_bytes(serialization.Encoding.PEM))
        for number, client in enumerate(("certbot", "lego")):
            home = tmp_path / client
            where = (pebble.directory_url, pebble.ca_bundle)
            if number == 0:
                obtained = await Certbot(home, *where).certonly_standalone(
                    [name], http_port=http_port, csr=path
                )
            else:
                obtained = await Lego(home, *where).run_http([name], http_port=http_port, csr=path)
            assert obtained.key is None
            assert obtained.leaf().public_key() == key.public_key()

    async def test_lego_by_http(self, pebble: Pebble, http_port: int, tmp_path: Path) -> None:
        """Obtain with a notAfter, which Pebble obeys; renew; revoke."""
        lego = Lego(tmp_path, pebble.directory_url, pebble.ca_bundle)
        names = [f"lg1.{ZONE}"]
        end = (authority.real_now() + datetime.timedelta(days=3)).replace(microsecond=0)
        first = await lego.run_http(names, http_port=http_port, not_after=end)
        check_obtained(first, names, pebble)
        assert first.leaf().not_valid_after_utc == end
        first_serial = serial_hex_of(first)
        renewed = await lego.renew_http(names, http_port=http_port)
        assert serial_hex_of(renewed) != first_serial
        await lego.revoke(names)
        assert pebble.status(serial_hex_of(renewed)).is_revoked
        assert not pebble.status(first_serial).is_revoked

    async def test_lego_by_dns(self, pebble: Pebble, named: Bind, tmp_path: Path) -> None:
        """A wildcard, through an alias into a zone made for challenges."""
        named.add_cname(f"_acme-challenge.lw.{ZONE}", f"lw.{DELEGATED}")
        lego = Lego(tmp_path, pebble.directory_url, pebble.ca_bundle)
        names = [f"*.lw.{ZONE}"]
        obtained = await lego.run_rfc2136(names, updates_of(named))
        check_obtained(obtained, names, pebble)
        serial = serial_hex_of(obtained)
        renewed = await lego.renew_rfc2136(names, updates_of(named))
        assert serial_hex_of(renewed) != serial

    async def test_external_accounts_profiles_and_roots(
        self, named: Bind, http_port: int, tmp_path: Path
    ) -> None:
        """A Pebble with options: binding required, a short profile, a second root."""
        options = PebbleOptions(
            external_accounts={EAB.kid: EAB.hmac_b64url},
            profiles={"default": datetime.timedelta(days=90), "brief": datetime.timedelta(hours=2)},
            alternate_roots=1,
            chain_length=2,
            always_valid=True,
            nonce_reject_percent=0,
        )
        tmp = tmp_path / "pebble"
        with Pebble(
            tmp, validation_http_port=http_port, dns_server=named.address, options=options
        ) as ca:
            names = [f"eab.{ZONE}"]
            where = (ca.directory_url, ca.ca_bundle)
            with pytest.raises(ClientFailed, match="requires External Account Binding"):
                await Lego(tmp_path / "1", *where).run_http(names, http_port=http_port)
            lego = Lego(tmp_path / "2", *where, external_account=EAB)
            brief = await lego.run_http(names, http_port=http_port, options=["--profile", "brief"])
            leaf = brief.leaf()
            assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= datetime.timedelta(
                hours=2
            )
            assert len(brief.issuers()) == 2
            assert ca.root_pem(0) != ca.root_pem(1)
            certbot = Certbot(tmp_path / "3", *where, external_account=EAB)
            options_used = ["--preferred-profile", "default", "--key-type", "rsa"]
            plain = await certbot.certonly_standalone(
                names, http_port=http_port, options=options_used
            )
            assert plain.leaf().not_valid_after_utc > leaf.not_valid_after_utc


class TestStepCa:
    """Stock clients get certificates from step-ca with nothing in between."""

    async def test_certbot_by_http(self, step_ca: StepCa, http_port: int, tmp_path: Path) -> None:
        """Obtain, renew and revoke."""
        certbot = Certbot(tmp_path, step_ca.directory_url, step_ca.ca_bundle)
        names = [f"sc1.{ZONE}"]
        first = await certbot.certonly_standalone(names, http_port=http_port)
        check_obtained(first, names, step_ca)
        await certbot.renew()
        renewed = certbot.obtained(names[0])
        await certbot.revoke(renewed)
        assert str(renewed.leaf().serial_number) in step_ca.issued()

    async def test_lego_by_dns(self, step_ca: StepCa, named: Bind, tmp_path: Path) -> None:
        """A wildcard with a notAfter within the provisioner's claims, which is met."""
        lego = Lego(tmp_path, step_ca.directory_url, step_ca.ca_bundle)
        names = [f"*.sl.{ZONE}"]
        end = authority.real_now().replace(microsecond=0) + datetime.timedelta(hours=30)
        obtained = await lego.run_rfc2136(names, updates_of(named), not_after=end)
        check_obtained(obtained, names, step_ca)
        assert obtained.leaf().not_valid_after_utc == end
        await lego.revoke(names)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A Vault that keeps what it keeps on the disk."""
    with Vault(tmp_path_factory.mktemp("vault")) as server:
        server.enable("transit", "transit")
        yield server


def test_vault_keeps_keys_over_a_restart_and_a_crash(vault: Vault) -> None:
    """They are there again once it is unsealed, and not before."""
    vault.ask("POST", "transit/keys/kept", {"type": "ecdsa-p256"})
    before = vault.ask("GET", "transit/keys/kept")["data"]["keys"]
    vault.restart()
    assert vault.ask("GET", "transit/keys/kept")["data"]["keys"] == before
    vault.kill()
    vault.start_sealed()
    with pytest.raises(process.PeerFailed, match="answered 503"):
        vault.ask("GET", "transit/keys/kept")
    vault.unseal()
    assert vault.ask("GET", "transit/keys/kept")["data"]["keys"] == before


def test_vault_can_be_put_back(vault: Vault, tmp_path: Path) -> None:
    """A restored Vault knows nothing of the versions that were made since."""
    vault.ask("POST", "transit/keys/rotated", {"type": "ecdsa-p256"})
    vault.stop()
    vault.save_storage(tmp_path / "saved")
    vault.start()
    vault.ask("POST", "transit/keys/rotated/rotate", {})
    assert vault.ask("GET", "transit/keys/rotated")["data"]["latest_version"] == 2
    with pytest.raises(process.PeerFailed, match="vault runs"):
        vault.restore_storage(tmp_path / "saved")
    vault.stop()
    vault.restore_storage(tmp_path / "saved")
    vault.start()
    assert vault.ask("GET", "transit/keys/rotated")["data"]["latest_version"] == 1


def test_vault_asks_kubernetes_about_every_token(vault: Vault, tmp_path: Path) -> None:
    """A token is good for the account and audience it was made for, until it is revoked."""
    with TokenReviews(tmp_path) as reviews:
        vault.enable_kubernetes(reviews)
        role = {
            "bound_service_account_names": "broker",
            "bound_service_account_namespaces": "penstock",
            "audience": "vault",
        }
        vault.ask("POST", "auth/kubernetes/role/serve", role)

        def log_in(jwt: str) -> int:
            document = {"role": "serve", "jwt": jwt}
            return vault.status("POST", "auth/kubernetes/login", document, token="")

        fine = reviews.mint("broker")
        assert log_in(fine) == 200
        assert log_in(reviews.mint("another")) == 403
        assert log_in(reviews.mint("broker", audience="another")) == 403
        assert log_in(reviews.mint("broker", lifetime=-datetime.timedelta(minutes=5))) == 403
        reviews.revoke(fine)
        assert log_in(fine) == 403
        assert reviews.reviewed[0] == "system:serviceaccount:penstock:broker"


def test_vault_takes_client_certificates(vault: Vault, tmp_path: Path) -> None:
    """Of the CA that the role names, and no other."""
    ca = authority.make_root("client certificates")
    vault.enable_auth("cert")
    role = {"certificate": ca.certificate_pem.decode("ascii"), "allowed_common_names": "broker"}
    vault.ask("POST", "auth/cert/certs/serve", role)
    made = vault.log_in_by_certificate(*make_client_certificate(tmp_path, "broker", ca))
    assert made["auth"]["metadata"]["cert_name"] == "serve"
    other = make_client_certificate(tmp_path / "other", "broker", authority.make_root("other"))
    with pytest.raises(process.PeerFailed, match="answered 400"):
        vault.log_in_by_certificate(*other)
