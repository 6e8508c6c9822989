"""A whole ACME CA that signs for real, counts, and can be told to misbehave.

In a test: ``async with HostileCa(tmp) as ca``.  Apart from it, so that it outlives
whatever is killed: ``with HostileCaProcess(tmp) as ca``.
"""

from tests.fakes.hostile_ca.ledger import Ledger
from tests.fakes.hostile_ca.remote import HostileCaProcess
from tests.fakes.hostile_ca.script import (
    FOREVER,
    AfterFinalize,
    Behaviour,
    Chain,
    ChallengeResult,
    Fault,
    NotAfter,
    Resource,
    Script,
)
from tests.fakes.hostile_ca.server import HostileCa

__all__ = [
    "FOREVER",
    "AfterFinalize",
    "Behaviour",
    "Chain",
    "ChallengeResult",
    "Fault",
    "HostileCa",
    "HostileCaProcess",
    "Ledger",
    "NotAfter",
    "Resource",
    "Script",
]
