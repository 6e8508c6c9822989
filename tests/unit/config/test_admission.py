"""The file of `penstock admission`."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from broker.config.admission import AdmissionConfig, load_admission
from broker.issuance.errors import Broken
from broker.policy.yamlfile import Faults

SMALLEST: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1",
    "kind": "Admission",
    "cluster": "prod",
    "namespace": "penstock",
    "broker": {"url": "https://penstock-operators.penstock.svc:8446"},
    "sidecar": {
        "image": "registry.example:5000/penstock-agent:0.1.0@sha256:" + "a" * 64,
        "broker_url": "https://penstock-agents.penstock.svc:8445",
    },
}


def write(path: Path, **changes: Any) -> Path:
    """Write the smallest file with *changes* of sections."""
    made = {**SMALLEST}
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(made.get(name), dict)
        made[name] = {**made[name], **value} if both else value
    out = StringIO()
    YAML(typ="safe", pure=True).dump(made, out)
    path.write_text(out.getvalue())
    return path


def read(folder: Path, **changes: Any) -> AdmissionConfig:
    """Return what such a file says."""
    return load_admission(write(folder / "admission.yaml", **changes))


def test_the_smallest_file_says_what_has_no_default(tmp_path: Path) -> None:
    """All else is where the chart puts it."""
    config = read(tmp_path)
    assert config.annotation_prefix == "penstock.dev"
    assert str(config.listen.webhook).endswith(":9443")
    assert str(config.listen.metrics).endswith(":9402")
    assert config.broker.timeout == timedelta(seconds=7)
    assert str(config.broker.token) == "file:/var/run/secrets/penstock-operators/token"
    assert (config.trust.source, config.trust.copy_name) == ("penstock-trust", "penstock-trust")
    assert config.webhooks.mutating == config.webhooks.validating == "penstock-admission"
    assert config.policies is None
    assert config.sidecar.token_lifetime == timedelta(hours=1)
    assert (config.sidecar.memory_limit, config.sidecar.metrics_port) == ("64Mi", 0)


def test_every_key_can_be_said(tmp_path: Path) -> None:
    """By the name that the chart writes."""
    config = read(
        tmp_path,
        annotation_prefix="tls.corp.example",
        trust={"source": "a-trust", "copy": "b-trust"},
        webhooks={"mutating": None, "validating": "x"},
        policies={"config": "/etc/penstock/penstock.yaml"},
        sidecar={"metrics_port": 9406, "start_within": "5m"},
        log={"format": "json", "level": "debug"},
    )
    assert (config.trust.source, config.trust.copy_name) == ("a-trust", "b-trust")
    assert (config.webhooks.mutating, config.webhooks.validating) == (None, "x")
    assert config.policies is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "Broker"}, "kind"),
        ({"cluster": "Prod"}, "cluster"),
        ({"namespace": "a b"}, "is no name in Kubernetes"),
        ({"annotation_prefix": "penstock"}, "is no domain such as"),
        ({"annotation_prefix": "Penstock.dev/x"}, "is no domain such as"),
        ({"broker": {"url": "http://penstock:8446"}}, "broker.url"),
        ({"broker": {"timeout": 7}}, "broker.timeout"),
        ({"broker": {"token": "eyJhbGciOi"}}, "expected a reference"),
        ({"broker": {"token": "vault:kv/a#b"}}, "expected a 'file:' or 'env:' reference"),
        ({"sidecar": {"image": "a b"}}, "is no name of an image"),
        ({"sidecar": {"image": "-x"}}, "is no name of an image"),
        ({"sidecar": {"memory_limit": "64"}}, ""),
        ({"sidecar": {"memory_limit": "lots"}}, "is no quantity"),
        ({"sidecar": {"token_lifetime": "5m"}}, "the least that Kubernetes takes"),
        ({"sidecar": {"metrics_port": 70_000}}, "sidecar.metrics_port"),
        ({"sidecar": {"pull_policy": "sometimes"}}, "sidecar.pull_policy"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """As in the broker's own file; a token that stands there is not repeated."""
    if not said:
        assert read(tmp_path, **changes).sidecar.memory_limit == "64"
        return
    with pytest.raises(Faults) as found:
        read(tmp_path, **changes)
    assert said in str(found.value)
    assert str(tmp_path / "admission.yaml:") in str(found.value)
    assert "eyJhbGciOi" not in str(found.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(Broken, match="cannot be read"):
        load_admission(tmp_path / "no.yaml")
