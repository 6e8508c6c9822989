"""What an operator can have done: the same functions behind the socket and behind the commands.

Over the workflows and the store; knows no HTTP, no configuration and no concrete CA.
"""

from broker.operations.desk import OperatorDesk
from broker.operations.parties import AuthorityKeeper, UpstreamEntry, UpstreamKeeper
from broker.operations.rooms import Recovery, Rooms

__all__ = [
    "AuthorityKeeper",
    "OperatorDesk",
    "Recovery",
    "Rooms",
    "UpstreamEntry",
    "UpstreamKeeper",
]
