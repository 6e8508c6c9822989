"""URIs of keys on a token."""

import pytest

from agents.crafting_ports import CraftFault
from agents.crafting_uri import parse_token_uri

WHERE = "?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/pin"


def test_what_a_uri_says() -> None:
    """Token, object, module and the file with the PIN; what is escaped is read."""
    uri = parse_token_uri(f"pkcs11:token=my%20web;object=www;id=%01%ff{WHERE}")
    assert (uri.token, uri.label, uri.id) == ("my web", "www", b"\x01\xff")
    assert uri.module == "/usr/lib/softhsm/libsofthsm2.so"
    assert uri.pin_file == "/etc/pin"


def test_a_uri_with_an_id_comes_back_as_it_is() -> None:
    """What names one key is read again as the same."""
    text = parse_token_uri(f"pkcs11:token=w;serial=12;object=a%2Fb{WHERE}").with_id(b"\x00;")
    again = parse_token_uri(text)
    assert again.text() == text
    assert (again.token, again.serial, again.label, again.id) == ("w", "12", "a/b", b"\x00;")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"token=w{WHERE}", "begins with"),
        ("pkcs11:token=w", "needs module-path"),
        ("pkcs11:token=w?module-path=lib.so&pin-source=file:/pin", "needs module-path"),
        ("pkcs11:token=w?module-path=/lib.so&pin-source=pin", "needs module-path"),
        (f"pkcs11:token=w{WHERE}&pin-value=1234", "holds a PIN"),
        (f"pkcs11:colour=red{WHERE}", "colour"),
    ],
    ids=["scheme", "nothing", "module", "pin", "pin in it", "unknown"],
)
def test_what_is_refused(text: str, said: str) -> None:
    """Each says what is wrong, and none repeats a PIN."""
    with pytest.raises(CraftFault, match=said) as caught:
        parse_token_uri(text)
    assert "1234" not in str(caught.value)
