"""The smallest configuration, to be changed by each test."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from broker.config.load import parse_config
from broker.config.model import Config
from broker.policy.yamlfile import Faults

SMALLEST: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1",
    "kind": "Broker",
    "external_url": "https://acme.corp.example",
    "listen": {"acme": {"from": "local"}, "plain": {}},
    "keys": {"passphrase": "file:/etc/penstock/key.pass"},
    "upstreams": {"local": {"kind": "built-in", "base_url": "http://pki.corp.example:8080"}},
}

Parse = Callable[..., Config]
FaultsOf = Callable[..., list[str]]


def _set(values: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for part in parents:
        values = values.setdefault(part, {})
    if value is None:
        values.pop(last)
    else:
        values[last] = value


def write(changes: dict[str, object]) -> str:
    """Return the smallest configuration with *changes*, given as dotted path and value."""
    values = copy.deepcopy(SMALLEST)
    for path, value in changes.items():
        _set(values, path, value)
    out = StringIO()
    YAML(typ="safe", pure=True).dump(values, out)
    return str(out.getvalue())


def parsed(changes: dict[str, Any] | None = None) -> Config:
    """Return the smallest configuration with *changes*, as it is read."""
    return parse_config(write(changes or {}), "penstock.yaml")


@pytest.fixture
def parse() -> Parse:
    """Read the smallest configuration with changes."""
    return parsed


@pytest.fixture
def faults_of() -> FaultsOf:
    """Return what is said against the smallest configuration with changes, without the place."""

    def find(changes: dict[str, object]) -> list[str]:
        with pytest.raises(Faults) as caught:
            parse_config(write(changes), "penstock.yaml")
        return [f"{each.path}: {each.message}" for each in caught.value.faults]

    return find
