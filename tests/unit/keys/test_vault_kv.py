"""Fields of KV v2 are read; what is none gets a sentence, and no value is ever in one."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.keys.vault_answers import VaultNotFound
from broker.keys.vault_kv import MAX_VALUE_BYTES, KvReader

MARKED = "kv-marked-value-4711"
META = {"metadata": {"version": 3}}


class FakeKv:
    """A session whose KV engine answers what it is told to."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.mounts: list[str] = []
        self.asked: list[tuple[str, str]] = []

    def serving(self, mount: str) -> "FakeKv":
        """Be the identity at every mount."""
        self.mounts.append(mount)
        return self

    async def run(self, call: Callable[[Any], Any]) -> Any:
        """Hand *call* what looks like hvac as far as it goes."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return call(self)

    @property
    def secrets(self) -> "FakeKv":
        """Stand for ``client.secrets``, and what hangs below."""
        return self

    kv = v2 = secrets

    def read_secret_version(
        self, path: str, *, mount_point: str, raise_on_deleted_version: bool
    ) -> object:
        """Answer as hvac would."""
        assert raise_on_deleted_version
        self.asked.append((mount_point, path))
        return self.answer


def answered(**fields: object) -> dict[str, object]:
    """Return what KV v2 answers for a secret with *fields*."""
    return {"data": {"data": fields, **META}}


async def test_a_field_is_read_at_its_mount_and_path() -> None:
    """By the identity of that mount, which may have a '/' in it."""
    kv = FakeKv(answered(mac_key=MARKED, other="x"))
    assert await KvReader(kv).read("team/kv", "penstock/ca", "mac_key") == MARKED.encode()
    assert (kv.mounts, kv.asked) == (["team/kv"], [("team/kv", "penstock/ca")])


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        pytest.param("plain", b"plain", id="plain"),
        pytest.param("line\n", b"line", id="line-break"),
        pytest.param("line\r\n", b"line", id="windows-line-break"),
        pytest.param("two\n\n", b"two\n", id="one-line-break-only"),
        pytest.param("grün", "grün".encode(), id="not-ascii"),
        pytest.param("x" * MAX_VALUE_BYTES, b"x" * MAX_VALUE_BYTES, id="largest"),
    ],
)
async def test_a_value_is_taken_as_text(value: str, octets: bytes) -> None:
    """As a secret in a file is: without the line break that an editor leaves."""
    assert await KvReader(FakeKv(answered(f=value))).read("kv", "a", "f") == octets


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        pytest.param(VaultNotFound("GET … answered 404"), "is not in Vault", id="absent"),
        pytest.param({"data": {"data": None, **META}}, "was deleted", id="deleted"),
        pytest.param(answered(other=MARKED), "has no such field", id="no-field"),
        pytest.param(answered(f=""), "is empty", id="empty"),
        pytest.param(answered(f="\n"), "is empty", id="empty-line"),
        pytest.param(answered(f=4711), "is no text", id="number"),
        pytest.param(answered(f={"a": MARKED}), "is no text", id="mapping"),
        pytest.param(answered(f=None), "is no text", id="null"),
        pytest.param(
            answered(f=MARKED * MAX_VALUE_BYTES), "larger than the limit of 65536 bytes", id="large"
        ),
        pytest.param({"data": {"f": MARKED}}, "KV engine of version 2", id="version-1"),
        pytest.param({}, "KV engine of version 2", id="nothing"),
        pytest.param(None, "KV engine of version 2", id="no-document"),
    ],
)
async def test_what_is_no_value_gets_a_sentence(answer: object, sentence: str) -> None:
    """It names where, never what."""
    with pytest.raises(Broken) as broken:
        await KvReader(FakeKv(answer)).read("kv", "team/a", "f")
    assert broken.value.reason.startswith("secret vault:kv/team/a#f ")
    assert sentence in broken.value.reason
    assert MARKED not in broken.value.reason


async def test_vault_that_is_away_is_waited_for() -> None:
    """It is no fault of the reference."""
    with pytest.raises(Unreachable, match="sealed"):
        await KvReader(FakeKv(Unreachable("Vault is sealed"))).read("kv", "a", "f")
