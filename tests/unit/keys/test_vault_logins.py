"""What each way of logging in shows to Vault, and what it makes of the answer."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.keys.vault_addresses import Addresses
from broker.keys.vault_answers import Denied
from broker.keys.vault_logins import Grant, Login, make_login
from broker.keys.vault_pool import HvacPool
from broker.keys.vault_settings import (
    AppRoleSettings,
    CertificateSettings,
    KubernetesSettings,
    LoginSettings,
    TokenSettings,
    VaultSettings,
)
from tests.fakes.fake_vault import FakeVault, answer, made_token, refused

Enter = Callable[[Login], Awaitable[Grant]]


@pytest.fixture
def vault() -> FakeVault:
    """A Vault of values."""
    return FakeVault()


@pytest.fixture
def enter(vault: FakeVault, tmp_path: Path) -> Enter:
    """Log in, in a thread as in life."""
    settings = VaultSettings(addresses=("https://a",), state_dir=tmp_path)
    pool = HvacPool(vault.blocking, Addresses(("https://a",), lambda: 0.0), settings)
    return lambda login: pool.run(login.log_in, None)


def by_token(text: bytes) -> TokenSettings:
    """Return a login by the token *text*."""
    return TokenSettings(read_token=lambda: text, place="file:/t")


def by_approle(secret_id: list[bytes], *, is_wrapped: bool) -> AppRoleSettings:
    """Return an AppRole whose secret id is the last of the list, or not there."""

    def read() -> bytes:
        if not secret_id:
            raise Broken("it is not there")
        return secret_id[-1]

    return AppRoleSettings(
        read_role_id=lambda: b"the-role",
        read_secret_id=read,
        place="file:/s",
        is_wrapped=is_wrapped,
    )


def by_kubernetes(tmp_path: Path, text: str = "projected") -> KubernetesSettings:
    """Return a login by the projected token *text*."""
    file = tmp_path / "projected"
    file.write_text(text, "ascii")
    return KubernetesSettings(role="penstock", token_file=file)


def by_certificate(tmp_path: Path, key: str = "-----BEGIN PRIVATE KEY-----") -> CertificateSettings:
    """Return a login by a certificate, which nobody here looks into."""
    for name, text in (("tls.pem", "certificate"), ("tls.key", key)):
        (tmp_path / name).write_text(text, "ascii")
    return CertificateSettings(
        role="penstock", certificate=tmp_path / "tls.pem", key=tmp_path / "tls.key"
    )


async def test_token_is_asked_how_long_it_lasts(
    vault: FakeVault, enter: Enter, tmp_path: Path
) -> None:
    """Distances count, whatever time of day Vault believes in."""
    said = {"ttl": 60, "renewable": True, "expire_time": "1999-01-01T00:00:00Z"}
    vault.on("lookup-self", answer({"data": said}))
    grant = await enter(make_login(by_token(b"hvs.given\n"), tmp_path))
    assert (grant.token, grant.seconds, grant.is_renewable) == ("hvs.given", 60, True)
    assert not grant.is_own
    assert vault.asked[0].token == "hvs.given"
    assert "hvs.given" not in repr(grant)


async def test_token_that_may_not_look_at_itself_is_renewed_instead(
    vault: FakeVault, enter: Enter, tmp_path: Path
) -> None:
    """One that may do neither does not let us in."""
    vault.on("lookup-self", refused(403, "permission denied"))
    vault.on("renew-self", made_token("", 30))
    login = make_login(by_token(b"hvs.given"), tmp_path)
    assert (await enter(login)).seconds == 30
    vault.on("renew-self", refused(400, "batch tokens cannot be renewed"))
    assert not (await enter(login)).is_renewable
    vault.on("renew-self", refused(403, "permission denied"))
    with pytest.raises(Denied):
        await enter(login)


async def test_token_that_is_no_more_does_not_let_us_in(
    vault: FakeVault, enter: Enter, tmp_path: Path
) -> None:
    """It is not tried any further."""
    vault.on("lookup-self", refused(403, "permission denied, invalid token"))
    with pytest.raises(Denied):
        await enter(make_login(by_token(b"hvs.given"), tmp_path))
    assert len(vault.asked) == 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hvs.\x00", id="control-character"),
        pytest.param("hvs.é".encode(), id="no-ascii"),
    ],
)
async def test_file_that_holds_no_token_is_told_without_its_content(
    enter: Enter, tmp_path: Path, text: bytes
) -> None:
    """It would be a header otherwise."""
    with pytest.raises(Broken, match="token in file:/t") as raised:
        await enter(make_login(by_token(text), tmp_path))
    assert "hvs" not in raised.value.reason


@pytest.mark.parametrize(
    ("kind", "path", "shown"),
    [
        pytest.param(
            "approle",
            "auth/approle/login",
            {"role_id": "the-role", "secret_id": "the-secret"},
            id="approle",
        ),
        pytest.param(
            "kubernetes",
            "auth/kubernetes/login",
            {"role": "penstock", "jwt": "projected"},
            id="kubernetes",
        ),
        pytest.param("certificate", "auth/cert/login", {"name": "penstock"}, id="certificate"),
    ],
)
async def test_login_shows_what_its_method_asks_for(
    vault: FakeVault, enter: Enter, tmp_path: Path, kind: str, path: str, shown: object
) -> None:
    """What it makes is our own, to be ended by us."""
    ways: dict[str, LoginSettings] = {
        "approle": by_approle([b"the-secret"], is_wrapped=False),
        "kubernetes": by_kubernetes(tmp_path),
        "certificate": by_certificate(tmp_path),
    }
    vault.on(path, made_token("hvs.made", 60))
    grant = await enter(make_login(ways[kind], tmp_path))
    assert (grant.token, grant.seconds, grant.is_own) == ("hvs.made", 60, True)
    assert grant.is_revocable
    (asked,) = vault.asked
    assert (asked.token, asked.json()) == (None, shown)
    own = (str(tmp_path / "tls.pem"), str(tmp_path / "tls.key"))
    assert asked.certificate == (own if kind == "certificate" else None)


async def test_batch_token_is_neither_renewed_nor_revoked(
    vault: FakeVault, enter: Enter, tmp_path: Path
) -> None:
    """It ends by itself."""
    vault.on("auth/approle/login", made_token("hvb.made", 60, token_type="batch"))
    grant = await enter(make_login(by_approle([b"s"], is_wrapped=False), tmp_path))
    assert not grant.is_renewable
    assert not grant.is_revocable


async def test_answer_without_a_token_is_broken(
    vault: FakeVault, enter: Enter, tmp_path: Path
) -> None:
    """Such as the demand for a second factor."""
    vault.on("auth/approle/login", answer({"auth": {"client_token": ""}}))
    with pytest.raises(Broken, match="without a token"):
        await enter(make_login(by_approle([b"s"], is_wrapped=False), tmp_path))


async def test_unwrapped_secret_id_is_kept_until_another_is_delivered(
    vault: FakeVault, enter: Enter, tmp_path: Path
) -> None:
    """Whoever delivered the wrapping token may take it away afterwards."""
    path = {"data": {"creation_path": "auth/approle/role/r/secret-id"}}
    vault.on("sys/wrapping/lookup", answer(path))
    vault.on("unwrap", lambda asked: answer({"data": {"secret_id": f"in-{asked.token}"}}))
    vault.on("auth/approle/login", made_token("hvs.made"))
    delivered = [b"hvs.first"]
    login = make_login(by_approle(delivered, is_wrapped=True), tmp_path)
    for _ in range(2):
        await enter(login)
    delivered.clear()
    await enter(login)
    delivered.append(b"hvs.second")
    await enter(login)
    shown = [each.json()["secret_id"] for each in vault.asked if each.path.endswith("login")]
    assert shown == ["in-hvs.first"] * 3 + ["in-hvs.second"]
    assert sum("unwrap" in path for path in vault.paths()) == 2


async def test_encrypted_key_is_refused_and_nobody_asked_for_a_passphrase(
    enter: Enter, tmp_path: Path
) -> None:
    """OpenSSL would ask at the terminal."""
    settings = by_certificate(tmp_path, "-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(Broken, match="is encrypted"):
        await enter(make_login(settings, tmp_path))


async def test_file_that_is_missing_or_too_large_is_broken(enter: Enter, tmp_path: Path) -> None:
    """Its path is told."""
    settings = by_kubernetes(tmp_path, "x" * 70_000)
    with pytest.raises(Broken, match="larger than"):
        await enter(make_login(settings, tmp_path))
    settings.token_file.unlink()
    with pytest.raises(Broken, match="projected cannot be read"):
        await enter(make_login(settings, tmp_path))


def test_new_evidence_is_noticed_and_shows_nothing(tmp_path: Path) -> None:
    """Only what must not wait is to be shown at once."""
    delivered = [b"one"]
    approle = make_login(by_approle(delivered, is_wrapped=True), tmp_path)
    before = approle.evidence()
    delivered.append(b"two")
    assert approle.evidence() != before
    assert "two" not in approle.evidence()
    delivered.clear()
    assert "it is not there" in approle.evidence()
    assert approle.is_prompt
    assert make_login(by_token(b"t"), tmp_path).is_prompt
    plain = make_login(by_approle([b"s"], is_wrapped=False), tmp_path)
    kubernetes = make_login(by_kubernetes(tmp_path), tmp_path)
    certificate = make_login(by_certificate(tmp_path), tmp_path)
    assert not any(each.is_prompt for each in (plain, kubernetes, certificate))
    whats = [each.what for each in (plain, kubernetes, certificate)]
    assert whats == [
        "approle at auth/approle",
        "kubernetes at auth/kubernetes",
        "certificate at auth/cert",
    ]
    assert kubernetes.evidence() != certificate.evidence()


@pytest.mark.parametrize("is_wrapped", [True, False])
async def test_secret_id_itself_is_no_intercepted_token(
    vault: FakeVault, enter: Enter, tmp_path: Path, *, is_wrapped: bool
) -> None:
    """Whoever forgot to wrap it is told so, without an alarm; where that is meant it is used."""
    vault.on("auth/approle/login", made_token("hvs.made"))
    secret_id = b"6b1ed4f2-5bd0-4b5a-a21c-6d3a8c7a3f10"
    login = make_login(by_approle([secret_id], is_wrapped=is_wrapped), tmp_path)
    if not is_wrapped:
        assert (await enter(login)).token == "hvs.made"
        return
    with pytest.raises(Broken, match="is_wrapped: false") as raised:
        await enter(login)
    assert "6b1ed4f2" not in raised.value.reason
    assert not vault.asked


@pytest.mark.parametrize(
    ("policies", "is_root"),
    [
        pytest.param(["root"], True, id="root"),
        pytest.param(["penstock.serve"], False, id="ours"),
        pytest.param(None, False, id="not-told"),
    ],
)
async def test_token_that_may_do_everything_is_noticed(
    vault: FakeVault, enter: Enter, tmp_path: Path, policies: object, *, is_root: bool
) -> None:
    """Nothing would keep two identities apart."""
    vault.on("lookup-self", answer({"data": {"ttl": 0, "policies": policies}}))
    settings = TokenSettings(read_token=lambda: b"hvs.t", place="file:/t")
    assert (await enter(make_login(settings, tmp_path))).is_root is is_root
