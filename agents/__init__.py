"""The sidecar of Penstock, kept apart from the broker.

This package is all that a host with only the agent on it installs: standard
library, no dependency, and it never imports the broker.
"""

__version__ = "0.1.0"
"""The version of both distributions; the builds of both read this line."""
