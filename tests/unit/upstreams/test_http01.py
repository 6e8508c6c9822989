"""The table of answers to CAs that look by HTTP."""

import pytest

from broker.upstreams.http01 import Http01Answers

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
PATH = f"/.well-known/acme-challenge/{TOKEN}"
ANSWER = f"{TOKEN}.thumbprint"


def table(**options: bool) -> Http01Answers:
    """Return a table with one answer."""
    answers = Http01Answers(**options)
    answers.add("www.example.com", TOKEN, ANSWER)
    return answers


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("www.example.com", id="plain"),
        pytest.param("www.example.com:80", id="with-port"),
        pytest.param("WWW.Example.com.", id="case-and-root-dot"),
    ],
)
def test_the_token_is_answered_for_its_host(host: str) -> None:
    """A Host header may be spelled in several ways."""
    assert table().answer(host, PATH) == ANSWER.encode()


@pytest.mark.parametrize(
    ("host", "path"),
    [
        pytest.param("other.example.com", PATH, id="other-host"),
        pytest.param("", PATH, id="no-host"),
        pytest.param("www.example.com", PATH + "x", id="other-token"),
        pytest.param("www.example.com", "/" + TOKEN, id="other-path"),
        pytest.param("www.example.com", "/.well-known/acme-challenge/", id="no-token"),
        pytest.param("www.example.com", PATH + "/../" + TOKEN, id="upwards"),
    ],
)
def test_anything_else_is_not_there(host: str, path: str) -> None:
    """What was not asked for is answered with nothing."""
    assert table().answer(host, path) is None


def test_hosts_that_redirect_here_can_be_allowed() -> None:
    """Then the token alone decides."""
    assert table(is_host_bound=False).answer("penstock.example.com", PATH) == ANSWER.encode()


def test_an_address_is_a_host_too() -> None:
    """RFC 8738: an IPv6 address stands in brackets."""
    answers = Http01Answers()
    answers.add("2001:db8::1", TOKEN, ANSWER)
    assert answers.answer("[2001:db8::1]:80", PATH) == ANSWER.encode()
    assert answers.answer("[2001:db8::2]:80", PATH) is None


def test_a_removed_answer_is_gone() -> None:
    """Removing it again changes nothing."""
    answers = table()
    assert len(answers) == 1
    answers.remove(TOKEN)
    answers.remove(TOKEN)
    assert (len(answers), answers.answer("www.example.com", PATH)) == (0, None)
