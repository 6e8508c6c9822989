"""The composition root: the only room that names concrete adapters."""

from broker.app.inspecting import inspect_authorities, kept_policies
from broker.app.kept_config import begin_with
from broker.app.looping import run_to_end
from broker.app.serving import open_offline, serve
from broker.storage.faults import StoreLocked

__all__ = [
    "StoreLocked",
    "begin_with",
    "inspect_authorities",
    "kept_policies",
    "open_offline",
    "run_to_end",
    "serve",
]
