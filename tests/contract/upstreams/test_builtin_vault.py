"""The built-in CA with its issuing key in the transit engine of a real Vault."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from pkilint import loader

from broker.app.authorities import Authorities
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import EventKind
from broker.keys.vault import VaultSigner
from broker.protocol.resources import OrderStatus
from broker.upstreams.authority import Authority
from broker.upstreams.builtin import BuiltinCa, BuiltinSettings
from broker.upstreams.builtin_leaf import crl_url
from tests.contract.upstreams.ca_in_vault import ACCOUNTS, CA, ISSUING, ROOT, Site, Swapping
from tests.contract.upstreams.test_builtin_lint import crl_linter, findings, lint
from tests.fakes.authority_keeper import ANNA, Keeper, Killed, OfflineRoot
from tests.fakes.builtin_ca import BASE_URL, PROFILES, make_csr, request
from tests.fakes.clock import START
from tests.peers.vault import Vault

pytestmark = pytest.mark.peers

FIRST, SECOND, THIRD = (f"vault:{CA}/penstock.local.issuing#{number}" for number in (1, 2, 3))
ROOT_IN_FILE = ("root", "ca-local-root-1")


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """One Vault for all, whose engines each test has afresh."""
    with Vault(tmp_path_factory.mktemp("vault"), storage="inmem") as made:
        yield made


@pytest.fixture
def site(vault: Vault, tmp_path: Path) -> Site:
    """Mounts, policies and tokens."""
    made = Site(vault, tmp_path)
    made.set_up()
    return made


@pytest.fixture
async def keeper(site: Site) -> AsyncIterator[Keeper]:
    """The CA is made, held to corp.example."""
    async with site.keeper() as made:
        await made.initialise(permitted_names=["corp.example"])
        yield made


async def ca_of(keeper: Keeper, signer: Any = None) -> BuiltinCa:
    """Return the CA as a broker has it that starts now."""
    issuers = (await keeper.kept()).issuers
    assert issuers is not None
    settings = BuiltinSettings(
        name="local",
        base_url=BASE_URL,
        profiles=PROFILES,
        default_profile="server",
        issuers=issuers,
    )
    signer = signer or keeper.registry.signer
    return BuiltinCa(settings, signer=signer, store=keeper.store, clock=keeper.clock)


async def issue(ca: BuiltinCa, reference: str = "work1") -> x509.Certificate:
    """Have a certificate for www.corp.example issued."""
    key = ec.generate_private_key(ec.SECP256R1())
    order = await ca.open_order(request(reference=reference))
    order = await ca.finalize(order, make_csr(key))
    assert order.status is OrderStatus.VALID
    return x509.load_pem_x509_certificates(await ca.download(order))[0]


async def crl_of(ca: BuiltinCa, issuer: Authority) -> x509.CertificateRevocationList:
    """Return an issuer's list, its signature verified."""
    found = await ca.current_crl(issuer.published_name)
    assert found is not None
    crl = x509.load_der_x509_crl(found.der)
    assert crl.is_signature_valid(issuer.key.public_key)
    return crl


# -------------------------------------------------------------------------------- what is signed


@pytest.mark.parametrize(
    ("made_as", "size"),
    [("ecdsa-p256", 256), ("ecdsa-p384", 384), ("rsa-2048", 2048), ("rsa-3072", 3072)],
)
async def test_certificate_and_list_verify(
    site: Site, tmp_path: Path, made_as: str, size: int
) -> None:
    """By OpenSSL and the linter, under a key of each kind that the security team may make."""
    site.vault.ask("POST", ISSUING, {"type": made_as})
    async with site.keeper() as keeper:
        await keeper.initialise(permitted_names=["corp.example"])
        ca = await ca_of(keeper)
        leaf = await issue(ca)
        issuer, root = ca.issuers.current, (await keeper.kept()).root
        assert root is not None
        assert issuer.key.public_key.key_size == size
        await ca.revoke(leaf.public_bytes(Encoding.DER), 4)
        crl = await crl_of(ca, issuer)
    assert [one.serial_number for one in crl] == [leaf.serial_number]
    for der in (leaf.public_bytes(Encoding.DER), issuer.der):
        assert lint(der) == set()
    assert set(findings(crl_linter().validate(_loaded(crl)))) == set()
    for name, made in (("root", root), ("issuing", issuer.certificate), ("leaf", leaf)):
        (tmp_path / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-x509_strict", "-attime", str(int(START.timestamp()))]
    command += ["-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "leaf.pem: OK\n", done.stderr


def _loaded(crl: x509.CertificateRevocationList) -> Any:
    return loader.load_der_crl(crl.public_bytes(Encoding.DER), "made").root


async def test_key_that_the_broker_makes_can_only_sign(site: Site, keeper: Keeper) -> None:
    """Neither exported nor backed up nor deleted; and certificates do not tell where it is."""
    found = site.issuing()
    assert found["type"] == "ecdsa-p256"
    for name in ("exportable", "allow_plaintext_backup", "deletion_allowed"):
        assert found[name] is False
    assert not found["auto_rotate_period"]
    assert await keeper.roles() == [ROOT_IN_FILE, ("current", FIRST)]
    ca = await ca_of(keeper)
    leaf = await issue(ca)
    assert b"transit" not in leaf.public_bytes(Encoding.DER)
    points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    name = ca.issuers.current.published_name
    assert points[0].full_name is not None
    assert points[0].full_name[0].value == crl_url(BASE_URL, name)
    assert ca.find_issuer(name) == ca.issuers.current
    fingerprint = hashes.Hash(hashes.SHA256())
    fingerprint.update(ca.issuers.current.key.spki_der)
    assert fingerprint.finalize().hex().startswith(name)


async def test_root_in_another_mount(vault: Vault, tmp_path: Path) -> None:
    """It signs the issuing certificate there; the issuing mount's identities know nothing of it."""
    site = Site(vault, tmp_path, root_in_vault=True)
    site.set_up()
    async with site.keeper() as keeper:
        await keeper.initialise()
        root = f"vault:{ROOT}/penstock.local.root#1"
        assert await keeper.roles() == [("root", root), ("current", FIRST)]
        state = await keeper.kept()
        assert state.root is not None
        assert state.issuers is not None
        state.issuers.current.certificate.verify_directly_issued_by(state.root)
        await keeper.prepare()
        assert (await keeper.roles())[-1] == ("next", SECOND)
    assert site.signs(root, site.token("root-serve"))
    for stranger in ("ca-serve", "ca-rotate", "accounts-serve", "accounts-rotate", "root-rotate"):
        assert not site.signs(root, site.token(stranger)), stranger


async def test_wrong_signature_is_never_a_certificate(site: Site, keeper: Keeper) -> None:
    """Vault's answer is verified before the ledger has it; the next right one issues."""
    rings: Any = keeper.registry.signer

    class Swapped:
        def serving(self, mount: str) -> Any:
            return Swapping(rings.vault._connections.serving(mount))

    ca = await ca_of(keeper, VaultSigner(Swapped()))  # type: ignore[arg-type]
    with pytest.raises(Broken, match=r"does not verify|is no signature"):
        await issue(ca)
    with pytest.raises(Broken):
        await ca.current_crl(ca.issuers.current.published_name)
    assert await keeper.store.find_ca_certificate("local", "work1") is None
    await issue(await ca_of(keeper))


# ----------------------------------------------------------------------------------- offline root


async def test_offline_root_certifies_a_key_that_others_made(vault: Vault, tmp_path: Path) -> None:
    """Where no identity of the broker makes keys: it asks for one by command, and takes it."""
    site = Site(vault, tmp_path, may_rotate=False)
    site.set_up()
    offline = OfflineRoot()
    async with site.keeper() as keeper:
        with pytest.raises(Broken, match=f"vault write -f {ISSUING} type=ecdsa-p256"):
            await keeper.authorities.request("local", subject="CN=Corp 1", actor=ANNA)
        vault.ask("POST", ISSUING, {"type": "ecdsa-p256"})
        asked = await keeper.authorities.request("local", subject="CN=Corp 1", actor=ANNA)
        made = site.issuing()["keys"]["1"]["public_key"]
        assert x509.load_pem_x509_csr(asked.encode()).public_key() == _key(made)
        await keeper.authorities.accept(
            "local", chain_pem=offline.answer(asked), anchors_pem=offline.pem, actor=ANNA
        )
        assert await keeper.roles() == [("root", None), ("current", FIRST)]
        with pytest.raises(Broken, match=f"vault write -f {ISSUING}/rotate"):
            await keeper.prepare(is_offline=True)
        vault.ask("POST", f"{ISSUING}/rotate", {})
        again = await keeper.prepare(is_offline=True)
        await keeper.authorities.accept(
            "local", chain_pem=offline.answer(again["csr_pem"]), anchors_pem=offline.pem, actor=ANNA
        )
        await keeper.activate()
        wanted = "config min_decryption_version=2 min_encryption_version=2, then"
        with pytest.raises(Broken, match=f"vault write {ISSUING}/{wanted}"):
            await keeper.retire()
        assert await keeper.roles() == [("root", None), ("retiring", FIRST), ("current", SECOND)]
        minimum = {"min_decryption_version": 2, "min_encryption_version": 2}
        vault.ask("POST", f"{ISSUING}/config", minimum)
        await keeper.retire()
        assert await keeper.roles() == [("root", None), ("retired", FIRST), ("current", SECOND)]
        await issue(await ca_of(keeper))


def _key(pem: str) -> Any:
    return load_pem_public_key(pem.encode())


@pytest.mark.parametrize(
    "options",
    [{"exportable": True}, {"allow_plaintext_backup": True}, {"auto_rotate_period": "24h"}],
    ids=lambda one: next(iter(one)),
)
async def test_key_that_could_leave_is_not_taken(site: Site, options: dict[str, Any]) -> None:
    """Nor one that changes by itself; nothing is left of the attempt."""
    site.vault.ask("POST", ISSUING, {"type": "ecdsa-p256", **options})
    async with site.keeper() as keeper:
        with pytest.raises(Broken):
            await keeper.initialise()
        assert await keeper.roles() == []
        assert not list((site.directory / "keys").glob("*.pem"))


# --------------------------------------------------------------------------------------- rotation


async def rotated(keeper: Keeper) -> None:
    """Put another issuer to work."""
    await keeper.prepare()
    await keeper.activate()


async def test_rotation_leaves_the_old_version_without_a_signature(
    site: Site, keeper: Keeper
) -> None:
    """Both live beside each other; then the old one signs a last list, and nothing ever again."""
    ca = await ca_of(keeper)
    leaf = await issue(ca)
    await rotated(keeper)
    ca = await ca_of(keeper)
    await issue(ca, "work2")
    (old,) = ca.issuers.past
    assert (old.key_id, ca.issuers.current.key_id) == (FIRST, SECOND)
    assert len(await crl_of(ca, old)) == 0
    with pytest.raises(Broken, match=r"1 certificate of .* in force"):
        await keeper.retire()
    await ca.revoke(leaf.public_bytes(Encoding.DER), 4)
    answer = await keeper.retire()
    assert answer["left_in_vault"] == [f"vault write {ISSUING}/trim min_available_version=2"]
    assert await keeper.roles() == [ROOT_IN_FILE, ("retired", FIRST), ("current", SECOND)]
    assert not site.signs(FIRST)
    assert site.signs(SECOND)
    crl = await crl_of(await ca_of(keeper), old)
    assert [one.serial_number for one in crl] == [leaf.serial_number]
    site.vault.ask("POST", f"{ISSUING}/trim", {"min_available_version": 2})
    await issue(await ca_of(keeper), "work3")


async def test_version_before_it_keeps_its_list(site: Site, keeper: Keeper) -> None:
    """The later of two past issuers goes first: what ends it would end the earlier one too."""
    await rotated(keeper)
    await rotated(keeper)
    answer = await keeper.retire(SECOND)
    assert answer["left_in_vault"] == []
    assert site.signs(FIRST)
    ca = await ca_of(keeper)
    (old,) = ca.issuers.past
    await crl_of(ca, old)
    await keeper.retire(FIRST)
    assert [site.signs(one) for one in (FIRST, SECOND, THIRD)] == [False, False, True]


async def test_move_from_files_is_a_rotation(site: Site) -> None:
    """The next issuer is made where keys are kept by now; the old one's file goes as it retires."""
    async with site.keeper() as keeper:
        in_files = Keeper(keeper.directory, keeper.store, keeper.registry.signer)
        await in_files.initialise()
        before = ("current", "ca-local-issuing-1")
        assert await keeper.roles() == [ROOT_IN_FILE, before]
        await rotated(keeper)
        assert (await keeper.roles())[1:] == [("past", before[1]), ("current", FIRST)]
        await issue(await ca_of(keeper))
        answer = await keeper.retire()
        assert answer["left_in_vault"] == []
        files = {one.stem for one in (site.directory / "keys").glob("*.pem")}
        assert files == {"ca-local-root-1"}


async def test_key_that_nothing_uses_any_more_is_for_others_to_delete(
    site: Site, keeper: Keeper
) -> None:
    """The CA moved elsewhere: its last version there can't be ended, and the answer says how to."""
    elsewhere = Keeper(keeper.directory, keeper.store, keeper.registry.signer)
    await rotated(elsewhere)
    answer = await elsewhere.retire()
    assert await keeper.roles() == [
        ROOT_IN_FILE,
        ("retired", FIRST),
        ("current", "ca-local-issuing-1"),
    ]
    allow, delete = answer["left_in_vault"]
    assert allow == f"vault write {ISSUING}/config deletion_allowed=true"
    assert delete == f"vault delete {ISSUING}"
    site.vault.ask("POST", f"{ISSUING}/config", {"deletion_allowed": True})
    site.vault.ask("DELETE", ISSUING)
    ca = await ca_of(keeper)
    await issue(ca)
    (gone,) = ca.issuers.retired
    await crl_of(ca, gone.authority)


Step = Callable[[Authorities], Awaitable[Any]]


async def prepare(authorities: Authorities) -> None:
    """Prepare."""
    await authorities.prepare("local", subject=None, is_offline=False, actor=ANNA)


async def activate(authorities: Authorities) -> None:
    """Activate."""
    await authorities.activate("local", actor=ANNA)


async def retire(authorities: Authorities) -> None:
    """Retire."""
    await authorities.retire("local", issuer=None, actor=ANNA)


STEPS: dict[str, tuple[tuple[str, ...], Step, EventKind, int]] = {
    "prepare": ((), prepare, EventKind.CA_ISSUER_PREPARED, 8),
    "activate": (("prepare",), activate, EventKind.CA_ISSUER_ACTIVATED, 2),
    "retire": (("prepare", "activate"), retire, EventKind.CA_KEY_DESTROYED, 10),
}
"""What comes before a step, the step, its last event, and at how many points it can be cut."""


@pytest.mark.parametrize("name", STEPS)
async def test_step_that_is_cut_off_anywhere_is_done_or_undone(
    vault: Vault, tmp_path: Path, name: str
) -> None:
    """After the next start it is as before, or finished; and doing it again leads to its end."""
    before, step, event, points = STEPS[name]
    for point in range(1, points + 2):
        folder = tmp_path / str(point)
        folder.mkdir()
        site = Site(vault, folder)
        site.set_up()
        async with site.keeper() as keeper:
            await keeper.initialise()
            for earlier in before:
                await getattr(keeper, earlier)()
            roles = await keeper.roles()
            try:
                await step(keeper.killed_at(point))
                break
            except Killed:
                await keeper.restart()
            after = await keeper.roles()
            assert (event in await keeper.events()) == (after != roles), f"cut at {point}"
            assert "planned" not in dict(after)
            if after == roles:
                await step(keeper.authorities)
            assert (await keeper.events()).count(event) == 1
            held = {one for role, one in await keeper.roles() if role != "retired"}
            assert site.signs(FIRST) == (FIRST in held)
            # An undone version is taken by the next attempt: none is left over.
            assert site.issuing()["latest_version"] == 2
            await issue(await ca_of(keeper))
    assert point == points + 1


# ----------------------------------------------------------------------------------- Vault away


@pytest.fixture
def sealing(tmp_path: Path) -> Iterator[Vault]:
    """A Vault for one test alone, which seals it."""
    folder = tmp_path / "vault"
    folder.mkdir()
    with Vault(folder) as made:
        yield made


async def test_sealed_vault_ends_nothing(sealing: Vault, tmp_path: Path) -> None:
    """Steps refuse before anything is done, lists go on being served, and all resumes by itself."""
    site = Site(sealing, tmp_path)
    site.set_up()
    async with site.keeper() as keeper:
        await keeper.initialise()
        await rotated(keeper)
        ca = await ca_of(keeper)
        leaf = await issue(ca)
        old, new = ca.issuers.past[0], ca.issuers.current
        lists = [await crl_of(ca, one) for one in (old, new)]
        roles, events = await keeper.roles(), await keeper.events()
        await asyncio.to_thread(sealing.seal)
        with pytest.raises(Unreachable):
            await issue(ca, "work2")
        for step in (keeper.prepare, keeper.retire):
            with pytest.raises(Unreachable):
                await step()
        assert (await keeper.roles(), await keeper.events()) == (roles, events)
        started = await ca_of(keeper)
        for one, crl in zip((old, new), lists, strict=True):
            assert await crl_of(started, one) == crl
        with pytest.raises(Unreachable):
            await started.revoke(leaf.public_bytes(Encoding.DER), 4)
        assert await keeper.restart() is not None
        site.returned.clear()
        await asyncio.to_thread(sealing.unseal)
        await site.returned.wait()
        await started.revoke(leaf.public_bytes(Encoding.DER), 4)
        assert len(await crl_of(started, new)) == 1
        await issue(ca, "work2")
        await keeper.retire()
        assert (await keeper.roles())[-1] == ("current", SECOND)


async def test_process_that_dies_between_signature_and_ledger_issued_nothing(
    site: Site, keeper: Keeper
) -> None:
    """What was signed was in its memory alone; the order has one certificate, signed anew."""
    ca = await ca_of(keeper)
    rings: Any = keeper.registry.signer

    class Dying:
        async def sign(self, key_id: str, data: bytes) -> bytes:
            await rings.sign(key_id, data)
            raise Killed

    key = ec.generate_private_key(ec.SECP256R1())
    order = await ca.open_order(request())
    with pytest.raises(Killed):
        await (await ca_of(keeper, Dying())).finalize(order, make_csr(key))
    started = await ca_of(keeper)
    assert (await started.read_order(order.url)).status is OrderStatus.READY
    made = [await started.finalize(order, make_csr(key)) for _ in range(2)]
    pems = {await started.download(one) for one in made}
    assert len(pems) == 1


# ------------------------------------------------------------------------------------- separation


async def test_identities_cannot_cross(site: Site, keeper: Keeper) -> None:
    """Each signs in its own mount alone, and who makes keys signs nowhere."""
    account = f"vault:{ACCOUNTS}/penstock.default.outer#1"
    async with site.keys() as rings:
        await rings.create_key(account, "ec-p256")
    may = {(FIRST, "ca-serve"), (account, "accounts-serve")}
    for key_id in (FIRST, account):
        for name in ("ca-serve", "ca-rotate", "accounts-serve", "accounts-rotate"):
            signs = site.signs(key_id, site.token(name))
            assert signs == ((key_id, name) in may), f"{name} at {key_id}"
    assert await keeper.roles()


# ------------------------------------------------------------------------------------------- cost


async def test_order_costs_one_request(site: Site, keeper: Keeper) -> None:
    """Vault is asked for the signature and for nothing else; a revocation is one more."""
    rings: Any = keeper.registry.signer
    asked: list[str] = []

    class Counting:
        def serving(self, mount: str) -> Any:
            session = rings.vault._connections.serving(mount)

            class Counted:
                async def post(self, path: str, document: Any) -> Any:
                    asked.append(f"POST {path}")
                    return await session.post(path, document)

                async def get(self, path: str) -> Any:
                    asked.append(f"GET {path}")
                    return await session.get(path)

            return Counted()

    ca = await ca_of(keeper, VaultSigner(Counting()))  # type: ignore[arg-type]
    await issue(ca)
    asked.clear()
    leaves = [await issue(ca, f"work{number}") for number in (2, 3, 4)]
    signature = f"POST {CA}/sign/penstock.local.issuing/sha2-256"
    assert asked == [signature] * 3
    await ca.revoke(leaves[0].public_bytes(Encoding.DER), 4)
    assert asked == [signature] * 4
