"""The form of a file of cases."""

from __future__ import annotations

import pytest

from broker.policy.case_form import Given, GivenClientCertificate, PolicyCases, Stage
from broker.policy.yamlfile import Faults, load_model

TEXT = """
apiVersion: penstock.dev/v1
kind: PolicyCases
policy: default.yaml
cases:
  - name: one
    given: {GIVEN}
    expect: {decision: allow}
    because: it is tried
"""


def read(given: str) -> Given:
    """Return what is given by the one case of a file."""
    return load_model(TEXT.replace("{GIVEN}", given), "f.yaml", PolicyCases)[0].cases[0].given


def test_what_is_left_out_is_as_it_should_be() -> None:
    """A case says what it is about and nothing else."""
    given = read("{names: [a.example], upstreams: []}")
    assert (given.renewal, given.csr, given.certificate) == (False, None, None)
    assert given.requester.address is None


def test_whole_story_is_written_down() -> None:
    """Who asks, with which CSR, and what came back."""
    given = read(
        "{names: [a.example], upstreams: [], renewal: true,"
        " requester: {address: 10.0.0.1, client_certificate: {names: [spiffe://x/y]}},"
        " csr: {key: rsa-2048, usages: [server-auth]}, certificate: {lifetime: 90d}}"
    )
    assert given.requester.client_certificate == GivenClientCertificate(names=("spiffe://x/y",))
    assert given.csr is not None
    assert given.csr.key == "rsa-2048"
    assert given.certificate is not None
    assert given.certificate.key == "same"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        pytest.param("{names: [a.example]}", "missing key 'upstreams'", id="upstreams"),
        pytest.param(
            "{names: [], upstreams: [], requester: {adress: 10.0.0.1}}",
            "did you mean 'address'?",
            id="misspelt",
        ),
        pytest.param(
            "{names: [], upstreams: [], csr: {usages: [codeSigning]}}",
            "expected 'server-auth', 'client-auth' or 'email-protection'",
            id="usage",
        ),
        pytest.param("{names: [], upstreams: [], certificate: {lifetime: 90}}", "90", id="no-unit"),
    ],
)
def test_broken_case_is_told(given: str, fault: str) -> None:
    """A case that says something else than its author means tests nothing."""
    with pytest.raises(Faults) as caught:
        read(given)
    assert fault in str(caught.value)


def test_stages_are_the_three_times_that_policy_is_asked() -> None:
    """Their words stand in files."""
    assert [str(stage) for stage in Stage] == ["new-order", "finalize", "issued"]
