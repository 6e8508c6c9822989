"""What the desk asks of upstreams and CA keys is what ``app`` offers."""

import inspect

import pytest

from broker.app.authorities import Authorities
from broker.operations.parties import AuthorityKeeper

METHODS = [
    name for name, member in vars(AuthorityKeeper).items() if inspect.iscoroutinefunction(member)
]


@pytest.mark.parametrize("name", METHODS)
def test_keeper_of_ca_keys_has_the_method(name: str) -> None:
    """Same parameters, by the same names."""
    asked = inspect.signature(getattr(AuthorityKeeper, name)).parameters
    offered = inspect.signature(getattr(Authorities, name)).parameters
    assert list(asked) == list(offered)


def test_every_method_is_compared() -> None:
    """The table above is not empty."""
    assert len(METHODS) == 7
