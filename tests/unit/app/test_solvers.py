"""Solvers put together from their sections."""

from pathlib import Path
from typing import Any

import pytest

from broker.app.secrets import Secrets
from broker.app.solvers import SolverMaker, name_servers
from broker.config import Endpoint
from broker.config.upstreams import AcmeUpstream
from broker.issuance.errors import Broken, Unreachable
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.http01 import Http01Answers
from broker.upstreams.solvers import ChallengeAnswer, Solver
from broker.upstreams.tlsalpn01 import TlsAlpn01Answers
from tests.fakes.clock import FakeClock
from tests.fakes.fake_kv import FakeKv
from tests.unit.config.conftest import parsed
from tests.unit.config.test_solvers import ACME, SOLVERS

NAME = Identifier(IdentifierType.DNS, "www.example.com")
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
ADDRESS = Identifier(IdentifierType.IP, "192.0.2.1")


def made(
    solver: dict[str, Any],
    tls_answers: TlsAlpn01Answers | None = None,
    kv: FakeKv | None = None,
) -> Solver:
    """Return the solver that a section describes."""
    config = parsed(
        {
            "upstreams.ca": {**ACME, "solvers": [solver]},
            "listen.tls_alpn": {},
            "vault": {
                "addresses": ["https://vault.corp.example:8200"],
                "serve": {"method": "token", "token": "file:/run/vault-token"},
            },
        }
    )
    upstream = config.upstreams["ca"]
    assert isinstance(upstream, AcmeUpstream)
    maker = SolverMaker(
        secrets=Secrets(config, kv, FakeClock()),
        clock=FakeClock(),
        answers=Http01Answers(),
        tls_answers=TlsAlpn01Answers(FakeClock()) if tls_answers is None else tls_answers,
        user_agent="penstock/test",
    )
    return maker.make(upstream.solvers[0])


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sections refer to."""
    monkeypatch.setenv("TSIG", "c2VjcmV0")
    monkeypatch.setenv("PDNS", "key")
    monkeypatch.setenv("HOOK", "token")


@pytest.mark.parametrize(
    ("solver", "kind", "takes_addresses"),
    [
        *((one, ChallengeType.DNS_01, False) for one in SOLVERS[:4]),
        (SOLVERS[4], ChallengeType.HTTP_01, True),
        (SOLVERS[5], ChallengeType.TLS_ALPN_01, True),
    ],
    ids=["rfc2136", "provider", "webhook", "exec", "http-01", "tls-alpn-01"],
)
def test_solver_is_made_of_its_section(
    solver: dict[str, Any], kind: ChallengeType, takes_addresses: bool
) -> None:
    """For names as a rule, and for addresses where the challenge can prove them (RFC 8738)."""
    built = made(solver)
    assert built.type is kind
    assert built.is_for(NAME)
    assert built.is_for(ADDRESS) == takes_addresses
    limited = made({**solver, "names": ["*.corp.example"]})
    assert not limited.is_for(NAME)
    assert not limited.is_for(ADDRESS)


async def test_tls_answers_come_into_the_table_that_is_served() -> None:
    """An empty table is a table: another one in its place would never be looked at."""
    table = TlsAlpn01Answers(FakeClock())
    publication = await made(SOLVERS[5], table).present(
        ChallengeAnswer(NAME, TOKEN, f"{TOKEN}.thumb")
    )
    assert table.find(NAME.value) is not None
    assert await publication.look() is None
    await publication.withdraw()
    assert len(table) == 0


@pytest.mark.parametrize("place", [1, 2, 3], ids=["provider", "webhook", "exec"])
def test_secret_of_several_lines_is_refused(
    monkeypatch: pytest.MonkeyPatch, place: int, tmp_path: Path
) -> None:
    """No header and no variable can carry it; it is not repeated."""
    for name in ("PDNS", "HOOK", "API"):
        monkeypatch.setenv(name, "hush\nhush")
    solver = SOLVERS[place]
    if place == 3:
        solver = {**solver, "exec": {**solver["exec"], "secrets": {"API_TOKEN": "env:API"}}}
    with pytest.raises(Broken, match="holds a control character") as caught:
        made(solver)
    assert "hush" not in caught.value.reason


def test_name_servers_keep_their_ports() -> None:
    """An address and a port each."""
    assert [str(one) for one in name_servers([Endpoint("10.0.0.53", 5353)])] == ["10.0.0.53:5353"]


IN_VAULT = [
    {
        "challenge": "dns-01",
        "rfc2136": {
            "server": "127.0.0.1:5353",
            "zone": "example.com",
            "tsig": {"name": "k.", "secret": "vault:kv/penstock/test#tsig"},
        },
    },
    {
        "challenge": "dns-01",
        "provider": {
            "name": "powerdns",
            "zone": "example.com",
            "secrets": {"auth_token": "vault:kv/penstock/test#text"},
        },
    },
    {
        "challenge": "dns-01",
        "webhook": {
            "url": "https://127.0.0.1:9",
            "hmac": "vault:kv/penstock/test#hmac",
            "bearer": "vault:kv/penstock/test#text",
        },
    },
    {
        "challenge": "dns-01",
        "exec": {"command": ["/bin/true"], "secrets": {"TOKEN": "vault:kv/penstock/test#text"}},
    },
]


@pytest.mark.parametrize("solver", IN_VAULT, ids=["rfc2136", "provider", "webhook", "exec"])
async def test_solver_waits_for_secrets_that_lie_in_vault(solver: dict[str, Any]) -> None:
    """It is made while Vault is away; what is asked of it then can be tried again."""
    kv = FakeKv(tsig="c2VjcmV0", text="plain", hmac="key")
    kv.is_away = True
    built = made({**solver, "self_check": {"enabled": False}}, kv=kv)
    assert kv.reads == []
    with pytest.raises(Unreachable, match="sealed"):
        await built.present(ChallengeAnswer(NAME, TOKEN, f"{TOKEN}.thumb"))
    assert kv.reads != []


@pytest.mark.parametrize(
    ("solver", "sentence"),
    [
        pytest.param(IN_VAULT[0], "#tsig is not base64", id="rfc2136"),
        pytest.param(IN_VAULT[1], "#text holds a control character", id="provider"),
        pytest.param(IN_VAULT[2], "#text holds a control character", id="webhook"),
        pytest.param(IN_VAULT[3], "#text holds a control character", id="exec"),
    ],
)
async def test_unusable_secret_from_vault_is_told_and_not_shown(
    solver: dict[str, Any], sentence: str
) -> None:
    """When it is needed; a person mends it in Vault, and it is read anew."""
    kv = FakeKv(tsig="hunter2!", text="hunter2\x07!", hmac="key")
    built = made({**solver, "self_check": {"enabled": False}}, kv=kv)
    with pytest.raises(Broken) as broken:
        await built.present(ChallengeAnswer(NAME, TOKEN, f"{TOKEN}.thumb"))
    assert sentence in broken.value.reason
    assert "hunter2" not in broken.value.reason
