"""Roles: some are never held by one person in one community."""

import pytest

from broker.policy.roles import APART, EVERYWHERE, Role, check_roles_apart


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ({"web": {Role.SECURITY, Role.APPROVER}}, "approver and security"),
        ({"web": {Role.OPERATOR, Role.APPROVER}}, "approver and operator"),
        ({"web": {Role.OPERATOR, Role.SECURITY}}, "operator and security"),
        ({EVERYWHERE: {Role.SECURITY}, "web": {Role.APPROVER}}, "in community 'web'"),
        ({EVERYWHERE: set(APART)}, "one person everywhere"),
    ],
    ids=["security-approver", "operator-approver", "operator-security", "across", "all"],
)
def test_roles_that_have_to_be_apart_are_told(roles: dict[str, set[Role]], words: str) -> None:
    """Whoever writes policy cannot approve, and whoever operates can do neither."""
    assert any(words in finding for finding in check_roles_apart(roles))


@pytest.mark.parametrize(
    "roles",
    [
        {},
        {"web": {Role.VIEWER, Role.AUDITOR, Role.SECURITY}},
        {"web": {Role.APPROVER}, "mail": {Role.OPERATOR}},
        {EVERYWHERE: {Role.VIEWER}, "web": {Role.APPROVER}},
    ],
    ids=["none", "beside", "elsewhere", "viewer-everywhere"],
)
def test_roles_that_may_be_together_are_not(roles: dict[str, set[Role]]) -> None:
    """An approver here may operate there, and may see everything."""
    assert check_roles_apart(roles) == []
