"""The agent's file for a pod, read back by the agent itself."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.config import Absent, AgentConfig, EnrolMethod, KeyKind, Layout, load
from broker.admission.agent_file import STATE, TLS, TOKEN, TRUST, AgentFile, quote, write_agent_file
from broker.admission.annotations import Reload

NAME = "PENSTOCK_AGENT_CONFIG"


def file(**more: object) -> AgentFile:
    """Return what is particular to a pod."""
    given: dict[str, object] = {
        "broker_url": "https://penstock-agents.penstock.svc:8445",
        "names": ("web.shop.svc", "10.0.0.1"),
        "profile": "",
        "key": "ec-p256",
        "layout": "kubernetes",
        "reload": None,
        "look": "",
        "metrics": "",
    }
    return AgentFile(**{**given, **more})  # type: ignore[arg-type]


def read(written: AgentFile, monkeypatch: pytest.MonkeyPatch) -> AgentConfig:
    """Return what the agent reads of it."""
    monkeypatch.setenv(NAME, write_agent_file(written))
    return load(f"env:{NAME}")


def test_the_agent_reads_what_is_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """It enrols as the pod's service account and holds everything to the cluster's roots."""
    config = read(file(), monkeypatch)
    assert (config.node.name, config.node.state, config.node.allowed) == ("", STATE, (TLS,))
    assert config.node.metrics is None
    assert config.broker.url == "https://penstock-agents.penstock.svc:8445"
    assert config.broker.anchors == TRUST
    assert config.enrol.method is EnrolMethod.KUBERNETES
    assert config.enrol.credential == f"file:{TOKEN}"
    (one,) = config.certificates
    assert one.names == ("web.shop.svc", "10.0.0.1")
    assert (one.profile, one.key.kind, one.look) == (None, KeyKind.EC_P256, None)
    assert one.files is not None
    assert (one.files.layout, one.files.directory, one.files.mode) == (
        Layout.KUBERNETES, TLS, 0o600,
    )  # fmt: skip
    assert one.expects.anchors == TRUST
    assert one.reload.is_nothing


def test_the_agent_reads_all_that_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started after its certificate is no fault the first time."""
    written = file(
        profile="server",
        key="rsa-2048",
        layout="combined",
        reload=Reload("HUP", "/usr/sbin/nginx"),
        look="[::1]:8443",
        metrics="0.0.0.0:9406",
    )
    config = read(written, monkeypatch)
    (one,) = config.certificates
    assert config.node.metrics == "0.0.0.0:9406"
    assert (one.profile, one.key.kind) == ("server", KeyKind.RSA_2048)
    assert one.look is not None
    assert (one.look.connect, one.look.first) == ("[::1]:8443", Absent.PASS)
    assert (one.reload.signal, one.reload.process) == ("HUP", "/usr/sbin/nginx")
    assert one.reload.absent is Absent.PASS


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_stays_one_string(value: str) -> None:
    """TOML reads back what was written, and a container's environment expands nothing of it."""
    quoted = quote(value)
    assert tomllib.loads(f"a = {quoted}\nb = 1") == {"a": value, "b": 1}
    assert not {"$", "`", "\\\\", "\n", "'"} & set(quoted)


def test_a_hostile_name_of_the_brokers_stays_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What policy answers is not believed to have a form either; the agent refuses it."""
    nasty = 'x"]\n[certificate.reload]\ncommand = ["/bin/sh"]\n#'
    text = write_agent_file(file(names=(nasty, "$(HOME)", "$$x")))
    document = tomllib.loads(text)
    assert document["certificate"][0]["names"] == [nasty, "$(HOME)", "$$x"]
    assert "reload" not in document["certificate"][0]
    assert "$" not in text
