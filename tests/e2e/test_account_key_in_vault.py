"""The account key is in Vault and nowhere else: a stock client's order is signed there, and neither
the broker's memory nor anything it keeps has the key.

That the search would find it is shown three times: in Vault's own memory, in that of a broker which
has its key in a file, and by a value that was planted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.deployments.memory import scalar_forms, search_files, search_memory
from tests.deployments.penstock import AcmeCa, Penstock
from tests.deployments.vaulted import PREFIX, Transit, vault_section
from tests.peers import process
from tests.peers.certbot import Certbot
from tests.peers.pebble import ChallTestSrv, Pebble
from tests.peers.stepca import StepCa
from tests.peers.vault import Vault

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

KEY: Final = "penstock.default.pebble"
TRANSIT_KINDS: Final = {"ec-p256": "ecdsa-p256", "ec-p384": "ecdsa-p384", "rsa-2048": "rsa-2048"}
"""Kind of key → what Vault calls it."""

NAME: Final = "mail.example.test"
PASSPHRASE: Final = b"a passphrase for tests"


class Scene:
    """A broker in front of Pebble, with a Vault beside it."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        self.tmp = tmp
        self._stack = stack
        self._plain = process.free_port()
        self.client_port = process.free_port()
        dns = stack.enter_context(ChallTestSrv(tmp / "dns"))
        self._dns_address = dns.dns_address
        pebble = Pebble(
            tmp / "pebble", validation_http_port=self._plain, dns_server=dns.dns_address
        )
        self.pebble = stack.enter_context(pebble)
        self.vault = stack.enter_context(Vault(tmp / "vault", storage="inmem"))
        (tmp / "transit").mkdir()
        self.transit = Transit(self.vault, tmp / "transit", "transit-penstock", [KEY])

    def serve(self, store: str) -> Penstock:
        """Return a broker at work that has its account key in *store*."""
        return self.enter(self.penstock(store))

    def enter(self, penstock: Penstock) -> Penstock:
        """Have a broker at work until the test's end."""
        return self._stack.enter_context(penstock)

    def step_ca(self) -> StepCa:
        """Return a step-ca that validates where the broker answers."""
        made = StepCa(
            self.tmp / "step-ca", validation_http_port=self._plain, dns_server=self._dns_address
        )
        return self._stack.enter_context(made)

    def penstock(self, store: str, *, is_rotating: bool = True) -> Penstock:
        """Return a broker that is to have its account key in *store*; it has not been started."""
        ca = AcmeCa(
            name="pebble",
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            options={"account_key": {"store": store}},
        )
        return self.before(ca, self.transit, is_rotating=is_rotating)

    def before(self, ca: AcmeCa, transit: Transit, *, is_rotating: bool = True) -> Penstock:
        """Return a broker in front of *ca* with its keys in *transit*; it has not been started."""
        return Penstock(
            self.tmp / "penstock",
            validation_http_port=self.client_port,
            plain_port=self._plain,
            hosts={NAME: ["127.0.0.1"]},
            upstreams=[ca],
            profiles={
                "server": {
                    "description": "TLS servers of the tests",
                    "usages": ["server-auth", "client-auth"],  # what step-ca puts into a leaf
                    "cap": "47d",
                    "upstreams": [{"upstream": ca.name}],
                }
            },
            is_registering=is_rotating,
            more={"vault": vault_section(transit, is_rotating=is_rotating)},
        )

    async def order(self, penstock: Penstock) -> None:
        """Have certbot obtain a certificate."""
        certbot = Certbot(self.tmp / "certbot", penstock.directory_url, penstock.ca_bundle)
        await certbot.certonly_standalone([NAME], http_port=self.client_port)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Pebble and Vault; the broker is the test's."""
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


def scalar_in_vault(scene: Scene) -> int:
    """Return the private scalar of the account key, which nobody can have but who is root in Vault
    and makes the key exportable after the fact."""
    scene.transit.configure(KEY, exportable=True)
    path = f"{scene.transit.mount}/export/signing-key/{KEY}/1"
    exported = scene.vault.ask("GET", path)["data"]["keys"]["1"]
    key = load_pem_private_key(exported.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value


async def test_key_in_vault_is_neither_in_memory_nor_in_the_store(scene: Scene) -> None:
    """A stock client is served, the key cannot be exported, and the search that finds it in Vault's
    memory finds it nowhere else."""
    penstock = scene.serve(scene.transit.store)
    await scene.order(penstock)
    made = scene.transit.key(KEY)
    assert (made["exportable"], made["allow_plaintext_backup"]) == (False, False)
    with pytest.raises(process.PeerFailed, match="not exportable"):
        scene.vault.ask("GET", f"{scene.transit.mount}/export/signing-key/{KEY}/1")
    sought = scalar_forms(scalar_in_vault(scene))
    sought["planted"] = (await planted(penstock)).encode()
    assert "little-endian" in await asyncio.to_thread(search_memory, scene.vault.pid, sought)
    found = await asyncio.to_thread(search_memory, penstock.pid, sought)
    assert found == {"planted"}
    assert penstock.database.is_file()
    assert search_files(penstock.state, {**sought, "account": b"/my-account/"}) == {
        "account",
        "planted",
    }
    assert not list((penstock.state / "keys").glob("account-*"))


async def planted(penstock: Penstock) -> str:
    """Return a value that the broker has just made, and has in its memory and its store."""
    minted = await penstock.a_json("eab", "mint")
    return str(minted["key_id"])


async def test_key_in_a_file_is_found_by_the_same_search(scene: Scene) -> None:
    """So the search above would have found it."""
    penstock = scene.serve("file")
    await scene.order(penstock)
    (path,) = (penstock.state / "keys").glob("account-*")
    key = load_pem_private_key(path.read_bytes(), PASSPHRASE)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    sought = scalar_forms(key.private_numbers().private_value)
    assert "little-endian" in await asyncio.to_thread(search_memory, penstock.pid, sought)
    assert not search_files(penstock.state, sought), "it is encrypted there"


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
async def test_step_ca_takes_signatures_of_every_kind(scene: Scene, kind: str) -> None:
    """A strict verifier of another make than Pebble's issues on the word of a key in transit."""
    step_ca = scene.step_ca()
    name = f"{PREFIX}.default.step"
    transit = Transit(scene.vault, scene.tmp / "transit", "transit-step", [name])
    ca = AcmeCa(
        name="step",
        directory_url=step_ca.directory_url,
        ca_bundle=step_ca.ca_bundle,
        description="step-ca",
        options={"account_key": {"store": transit.store, "kind": kind}},
    )
    await scene.order(scene.enter(scene.before(ca, transit)))
    assert len(step_ca.issued()) == 1
    assert transit.key(name)["type"] == TRANSIT_KINDS[kind]


async def test_key_that_rotates_by_itself_is_refused_until_it_is_mended(scene: Scene) -> None:
    """At the start, by the check, and by the broker; the reason says which command mends it."""
    penstock = scene.serve(scene.transit.store)
    assert penstock.run("check", "--online").returncode == 0
    penstock.stop()
    scene.transit.configure(KEY, auto_rotate_period="30d")
    penstock.start()
    mend = f"vault write transit-penstock/keys/{KEY}/config auto_rotate_period=0"
    process.wait_until(lambda: mend in readyz(penstock), 60.0, "the page tells of the key")
    assert mend in penstock.run("check", "--online", status=2).stderr
    assert mend in penstock.run("check", status=2).stderr
    assert mend in penstock.run("upstream", "check", "pebble", status=1).stdout
    scene.transit.configure(KEY, auto_rotate_period=0)
    (checked,) = penstock.json("upstream", "check", "pebble")
    assert checked["faults"] == []
    assert penstock.run("check", "--online").returncode == 0
    await scene.order(penstock)


def readyz(penstock: Penstock) -> str:
    """Return the page that says what is ready, and what is odd."""
    return process.get(f"http://127.0.0.1:{penstock.health_port}/readyz?verbose").decode()


async def test_key_that_the_security_team_makes_is_used(scene: Scene) -> None:
    """Without an identity that makes keys, the broker says which command makes this one."""
    penstock = scene.penstock(scene.transit.store, is_rotating=False)
    penstock.prepare()
    register = ("upstream", "register", "pebble", "--agree-to-terms")
    said = penstock.run(*register, status=1).stderr
    assert f"vault write -f transit-penstock/keys/{KEY} type=ecdsa-p256" in said
    scene.transit.make(KEY)
    penstock.run(*register)
    assert scene.transit.key(KEY)["latest_version"] == 1
    with penstock:
        await scene.order(penstock)


async def test_keys_in_files_are_the_lesser_choice_at_every_start(scene: Scene) -> None:
    """It is told of the account as long as its key lies in a file."""
    penstock = scene.serve("file")
    said = "keys lie in encrypted files, which is the lesser choice"
    assert penstock.log_text().count(said) == 1
    penstock.stop()
    penstock.start()
    assert penstock.log_text().count(said) == 2
    assert "account of community 'default' at 'pebble'" in penstock.log_text()
