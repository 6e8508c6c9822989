"""The broker's configuration: one YAML file, read once and validated whole.

Units are in the types, secrets are references, every fault is told at once with its line.
Environment variables change nothing in it but what ``env:`` references point to.
"""

from broker.config.load import load_all, load_config
from broker.config.model import Config
from broker.config.values import Endpoint, SecretRef

__all__ = [
    "Config",
    "Endpoint",
    "SecretRef",
    "load_all",
    "load_config",
]
