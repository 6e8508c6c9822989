"""What the build of the distribution `penstock` works out for itself.

The version stands in ``agents/__init__.py`` alone, the libraries stand in
``requirements/prod.in`` alone, and the default policies stand in ``policies/``
alone.  The two hooks here read them, so that nothing is written twice and the two
distributions can only be installed in the same version.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class DependenciesHook(MetadataHookInterface):
    """Fill in the dependencies: the libraries of prod.in, and the agent of this version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dependencies of the wheel."""
        lines = Path(self.root, "requirements", "prod.in").read_text(encoding="utf-8").splitlines()
        libraries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        metadata["dependencies"] = [*libraries, f"penstock-agent=={metadata['version']}"]


class PoliciesHook(BuildHookInterface):
    """Let the default policies travel in the wheel, as broker/default_policies.

    Not in an editable install: there the folder of the clone is read, and a copy
    beside the libraries would go stale.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folder to a wheel that is built to be installed elsewhere."""
        if self.target_name == "wheel" and version == "standard":
            policies = str(Path(self.root, "policies"))
            build_data["force_include"][policies] = "broker/default_policies"
