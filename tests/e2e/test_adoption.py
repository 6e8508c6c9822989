"""Accounts of certbot, lego and cert-manager become ours at a real CA, their keys in a real Vault.

What they ordered is renewed as a renewal and can be revoked; whatever goes wrong, either the
other client still has its account, or we have it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.protocol.certificates import cert_id
from broker.protocol.parsed_certificate import parse_certificate
from tests.deployments.adopting import MOUNT, TRUSTED, Adopting
from tests.deployments.requester import Placed, Requester
from tests.peers import process
from tests.peers.certbot import Certbot
from tests.peers.lego import Lego
from tests.peers.stepca import StepCa

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

KEY_CHANGE: Final = r"/rollover-account-key$"

STORES: Final = {
    "certbot": "vault",
    "lego": "file",
    "manager": "vault",
    "refused": "vault",
    "undone": "vault",
    "killed-before": "vault",
    "killed-after": "vault",
    "kept": "file",
    "brought": "vault",
    "replaced": "file",
    "step": "file",
}
"""An upstream for each test: an account is one upstream's."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adopting]:
    """The deployment."""
    with ExitStack() as stack:
        tmp = tmp_path_factory.mktemp("adoption")
        dns = f"127.0.0.1:{process.free_port()}"
        step_ca = stack.enter_context(
            StepCa(tmp / "step-ca", validation_http_port=process.free_port(), dns_server=dns)
        )
        yield Adopting(tmp, stack, STORES, imports=["brought"], step_ca=step_ca)


@pytest.fixture(autouse=True)
def _clear(scene: Adopting) -> Iterator[None]:
    """Whatever was aimed at and did not come is forgotten."""
    yield
    scene.between.aims.clear()


@pytest.fixture
async def requester(scene: Adopting) -> AsyncIterator[Requester]:
    """A client that policy trusts with every name."""
    made = Requester(scene.penstock.directory_url, scene.penstock.ca_bundle)
    async with made as requester:
        assert (await requester.bind(TRUSTED, scene.mac)).status in (200, 201)
        yield requester


def a_certbot(scene: Adopting, name: str) -> Certbot:
    """Return a certbot that comes to the CA as the broker does."""
    url = f"https://127.0.0.1:{scene.between.port}/dir"
    return Certbot(scene.tmp / name, url, scene.between.ca_bundle)


def account_of(certbot: Certbot) -> Path:
    """Return the directory of its one account."""
    (found,) = (certbot.directory / "config" / "accounts").rglob("private_key.json")
    return found.parent


async def registered(scene: Adopting, name: str) -> tuple[Certbot, Path, str]:
    """Return a certbot with an account, its directory and its URL."""
    certbot = a_certbot(scene, name)
    await certbot.run(["register"])
    account = account_of(certbot)
    return certbot, account, json.loads((account / "regr.json").read_text())["uri"]


async def adopt(scene: Adopting, upstream: str, source: Path, *options: str) -> dict[str, Any]:
    """Adopt an account by the command."""
    made = await scene.penstock.a_json("upstream", "adopt", upstream, str(source), *options)
    return dict(made)


async def is_good(certbot: Certbot) -> bool:
    """Say whether the account's key, as certbot has it, still speaks for the account."""
    try:
        await certbot.run(["update_account", "--email", f"{secrets.token_hex(4)}@example.test"])
    except process.PeerFailed:
        return False
    return True


async def obtain(requester: Requester, profile: str, name: str, **members: Any) -> Placed:
    """Order one certificate and return the order once it is valid."""
    requester.nonce = None
    placed = await requester.request(name, profile=profile, **members)
    assert await placed.settled() == "valid", placed.order
    return placed


def adopted_files(scene: Adopting, upstream: str) -> list[str]:
    """Return the files of keys that came with an account."""
    return sorted(name for name in scene.key_files() if name.startswith(f"adopted-{upstream}@"))


async def test_account_of_certbot_goes_on_as_ours(scene: Adopting, requester: Requester) -> None:
    """The CA takes our order for a renewal of certbot's certificate, and our revocation of it."""
    certbot, name = a_certbot(scene, "certbot"), "web.example.test"
    obtained = await certbot.certonly_standalone([name], http_port=process.free_port())
    before = obtained.leaf()
    source = account_of(certbot)
    url = json.loads((source / "regr.json").read_text())["uri"]

    made = await adopt(scene, "certbot", source)
    assert (made["url"], made["certificates"], made["same_key"]) == (url, 1, False)
    assert made["key"] == f"vault:{MOUNT}/penstock.default.certbot#1"
    key = scene.transit.key("penstock.default.certbot")
    assert (key["exportable"], key["imported_key"]) == (False, False)
    assert adopted_files(scene, "certbot") == []
    assert await scene.faults("certbot") == []
    assert not await is_good(certbot)

    replaced = cert_id(parse_certificate(before.public_bytes(Encoding.DER)))
    renewed = await obtain(requester, "certbot", name, replaces=replaced)
    assert "replaces-dropped" not in scene.events("certbot")
    # The CA counts one successor: who comes second is told that there is one.
    async with Requester(scene.penstock.directory_url, scene.penstock.ca_bundle) as second:
        await second.bind(TRUSTED, scene.mac)
        await obtain(second, "certbot", name, replaces=replaced)
    assert "replaces-dropped" in scene.events("certbot")

    told = await asyncio.to_thread(
        scene.penstock.json, "upstream", "revoke", "certbot", str(obtained.certificate)
    )
    assert told["revoked"]
    assert scene.pebble.status(f"{before.serial_number:x}").is_revoked
    own = scene.tmp / "own.pem"
    own.write_bytes((await renewed.chain())[0].public_bytes(Encoding.PEM))
    with pytest.raises(process.PeerFailed, match="penstock cert revoke"):
        scene.penstock.json("upstream", "revoke", "certbot", str(own))
    nothing_is_told(scene, source / "private_key.json")


def nothing_is_told(scene: Adopting, key_file: Path) -> None:
    """See that no part of a key of certbot's is in the broker's log, store or state."""
    jwk = json.loads(key_file.read_text())
    parts = [jwk[name].encode() for name in ("d", "p", "q", "dp", "dq", "qi")]
    raw = [base64.urlsafe_b64decode(part + b"==") for part in parts]
    state = [path for path in scene.penstock.state.rglob("*") if path.is_file()]
    logs = [path for path in scene.penstock.directory.glob("*.log") if path.is_file()]
    assert logs
    for path in (*state, *logs):
        content = path.read_bytes()
        assert not [part for part in (*parts, *raw) if part in content], path


async def test_account_of_lego_goes_to_a_key_file(scene: Adopting, requester: Requester) -> None:
    """Without Vault it is the same, in a file of ours."""
    lego = Lego(
        scene.tmp / "lego",
        f"https://127.0.0.1:{scene.between.port}/dir",
        scene.between.ca_bundle,
    )
    obtained = await lego.run_http(["l.example.test"], http_port=process.free_port())
    (source,) = (file.parent for file in lego.directory.rglob("account.json"))
    made = await adopt(scene, "lego", source, "--certificate", str(obtained.certificate))
    assert made["key"] == "account-lego@default"
    assert made["certificates"] == 1
    assert "account-lego@default.pem" in scene.key_files()
    assert adopted_files(scene, "lego") == []
    replaced = cert_id(parse_certificate(obtained.leaf().public_bytes(Encoding.DER)))
    await obtain(requester, "lego", "l.example.test", replaces=replaced)
    assert "replaces-dropped" not in scene.events("lego")


async def test_secret_of_cert_manager_needs_no_url(scene: Adopting, requester: Requester) -> None:
    """The CA says which account a key has."""
    url, source = await secret_of(scene, "manager")
    made = await adopt(scene, "manager", source)
    assert made["url"] == url
    await obtain(requester, "manager", "m.example.test")


async def secret_of(scene: Adopting, name: str) -> tuple[str, Path]:
    """Return the URL of a fresh account, and the manifest with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with Requester(
        f"https://127.0.0.1:{scene.between.port}/dir", scene.between.ca_bundle
    ) as client:
        client.key = key
        answer = await client.register(termsOfServiceAgreed=True)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "letsencrypt-account"},
        "data": {"tls.key": base64.b64encode(pem).decode()},
    }
    path = scene.tmp / f"{name}.json"
    path.write_text(json.dumps(document))
    return str(answer.headers["Location"]), path


async def test_what_is_no_account_of_this_ca_is_refused(scene: Adopting) -> None:
    """Each with a sentence; nothing is kept, no key file, no account."""
    certbot, account, url = await registered(scene, "refused")
    stranger = scene.tmp / "stranger.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    stranger.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    await refused(scene, stranger, "knows no account by this key; is it one of another CA")
    elsewhere = "https://acme-staging.example/acct/1"
    await refused(scene, account, "leads to another origin", "--account-url", elsewhere)
    await refused(scene, account, f"speaks for account {url}", "--account-url", f"{url}0")
    await refused(scene, account, "said with --import-existing", "--keep-key")
    await refused(scene, account, "cannot be read", "--certificate", str(scene.tmp / "none.pem"))
    copied = scene.tmp / "copied"
    copied.mkdir()
    for file in ("private_key.json", "regr.json"):
        (copied / file).write_bytes((account / file).read_bytes())
    await certbot.run(["unregister"])
    await refused(scene, copied, "cannot be used")
    assert await scene.account("refused") is None
    assert adopted_files(scene, "refused") == []


async def refused(scene: Adopting, source: Path, sentence: str, *options: str) -> None:
    """See that an adoption is refused with a sentence."""
    with pytest.raises(process.PeerFailed, match=sentence):
        await adopt(scene, "refused", source, *options)


async def test_ca_that_changes_no_keys_undoes_the_adoption(scene: Adopting) -> None:
    """Its 501 leaves the account with certbot, and nothing of it here."""
    certbot, account, _ = await registered(scene, "undone")
    scene.between.aim(KEY_CHANGE, status=501, reaches_ca=False)
    with pytest.raises(process.PeerFailed, match="501"):
        await adopt(scene, "undone", account)
    assert await scene.account("undone") is None
    assert adopted_files(scene, "undone") == []
    assert await is_good(certbot)


async def test_step_ca_changes_no_keys(scene: Adopting) -> None:
    """What its directory offers it does not do: the account is adopted with its key or not."""
    (upstream,) = [one for one in await scene.ask("upstream_list") if one["upstream"] == "step"]
    assert scene.step_ca is not None
    certbot = Certbot(scene.tmp / "step", upstream["url"], scene.step_ca.ca_bundle)
    await certbot.run(["register"])
    account = account_of(certbot)
    with pytest.raises(process.PeerFailed, match="not implemented"):
        await adopt(scene, "step", account)
    assert await scene.account("step") is None
    assert adopted_files(scene, "step") == []
    made = await adopt(scene, "step", account, "--keep-key")
    assert made["same_key"]
    assert await scene.faults("step") == []


@pytest.mark.parametrize("reaches_ca", [False, True], ids=["before", "after"])
async def test_broker_is_killed_at_the_change(
    scene: Adopting, requester: Requester, reaches_ca: bool
) -> None:
    """SIGKILL before the CA has the wish, or after it has granted it: ours either way."""
    upstream = "killed-after" if reaches_ca else "killed-before"
    _, account, url = await registered(scene, upstream)
    aim = scene.between.aim(KEY_CHANGE, reaches_ca=reaches_ca)
    adopting = asyncio.ensure_future(adopt(scene, upstream, account))
    assert await asyncio.to_thread(aim.struck.wait, 60)
    scene.penstock.kill()
    with pytest.raises(process.PeerFailed):
        await adopting
    await asyncio.to_thread(scene.penstock.start)
    async with asyncio.timeout(60):
        while await scene.faults(upstream):  # noqa: ASYNC110 - a process cannot be awaited otherwise
            await asyncio.sleep(0.2)
    found = await scene.account(upstream)
    assert found is not None
    assert found["url"] == url
    assert bool(adopted_files(scene, upstream)) != reaches_ca
    if not reaches_ca:
        made = await adopt(scene, upstream, account)
        assert made["key"].startswith(f"vault:{MOUNT}/penstock.default.{upstream}#")
    await obtain(requester, upstream, f"{upstream}.example.test")


async def test_key_is_kept_where_a_person_insists(scene: Adopting, requester: Requester) -> None:
    """In a file of ours; later it is changed like any other."""
    certbot, account, url = await registered(scene, "kept")
    made = await adopt(scene, "kept", account, "--keep-key")
    assert made["same_key"]
    assert adopted_files(scene, "kept") == [f"{made['key']}.pem"]
    assert await is_good(certbot)
    await obtain(requester, "kept", "kept.example.test")
    await scene.ask("upstream_rotate_key", upstream="kept")
    assert not await is_good(certbot)
    found = await scene.account("kept")
    assert found is not None
    assert found["url"] == url


async def test_key_is_brought_into_vault_as_it_is(scene: Adopting, requester: Requester) -> None:
    """Wrapped on its way, not to be exported there, and no file of it is left."""
    _, account, _ = await registered(scene, "brought")
    with pytest.raises(process.PeerFailed, match=r"of kind rsa-2048, .* says ec-p256"):
        await adopt(scene, "brought", account, "--import-existing")
    url, account = await secret_of(scene, "brought")
    made = await adopt(scene, "brought", account, "--import-existing")
    assert made["key"] == f"vault:{MOUNT}/penstock.default.brought#1"
    key = scene.transit.key("penstock.default.brought")
    assert (key["imported_key"], key["exportable"], key["allow_plaintext_backup"]) == (
        True,
        False,
        False,
    )
    assert made["url"] == url
    assert adopted_files(scene, "brought") == []
    await obtain(requester, "brought", "brought.example.test")


async def test_account_that_is_ours_gives_way_when_told_to(
    scene: Adopting, requester: Requester
) -> None:
    """Not otherwise; the second one is used from then on."""
    _, first, first_url = await registered(scene, "replaced-1")
    _, second, second_url = await registered(scene, "replaced-2")
    await adopt(scene, "replaced", first)
    with pytest.raises(process.PeerFailed, match=f"has account {first_url}.*--replace"):
        await adopt(scene, "replaced", second)
    made: Mapping[str, Any] = await adopt(scene, "replaced", second, "--replace")
    assert (made["url"], made["gave_way"]) == (second_url, first_url)
    await obtain(requester, "replaced", "replaced.example.test")
