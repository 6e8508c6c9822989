"""URLs are made from the external URL alone, and read back only as they were made."""

import pytest

from broker.web.links import Links

LINKS = Links("https://acme.corp.example:8443/pki", {"default", "lab"})
BASE = "https://acme.corp.example:8443/pki/acme/default"


def test_urls_stand_below_the_external_url() -> None:
    """Port and path of the external URL are in each of them."""
    made = LINKS.of("default")
    assert made.directory == f"{BASE}/directory"
    assert made.account("a1") == f"{BASE}/account/a1"
    assert LINKS.root == "/pki/acme"
    assert LINKS.requested("/pki/acme/default/new-order") == f"{BASE}/new-order"


def test_account_url_is_read_back() -> None:
    """The URL that was handed out names its account."""
    assert LINKS.of("default").parse_account(f"{BASE}/account/a1") == "a1"


@pytest.mark.parametrize(
    "kid",
    [
        f"{BASE}/account/",
        f"{BASE}/account/a1/",
        f"{BASE}/account/a1#x",
        f"{BASE}/account/a%31",
        f"{BASE}/account/{'a' * 65}",
        f"{BASE}/accounts/a1",
        BASE.replace("default", "lab") + "/account/a1",
        "a1",
        "",
    ],
)
def test_any_other_text_is_no_account_url(kid: str) -> None:
    """Another spelling is another URL."""
    assert LINKS.of("default").parse_account(kid) is None


@pytest.mark.parametrize(
    ("path", "index"),
    [
        ("/pki/acme/default/new-order", f"{BASE}/directory"),
        ("/pki/acme/lab/order/x", BASE.replace("default", "lab") + "/directory"),
        ("/pki/acme/default/directory", None),
        ("/pki/acme/directory", None),
        ("/pki/acme/nowhere/new-order", None),
        ("/", None),
    ],
    ids=["order", "lab", "directory", "short", "unknown", "root"],
)
def test_index_is_the_directory_of_the_paths_community(path: str, index: str | None) -> None:
    """Everything of a community links to its directory, but the directory itself."""
    assert LINKS.index_for(path) == index
