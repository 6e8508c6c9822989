"""Servers that never come to an end, in front of hvac's threads."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from broker.keys.vault_answers import Away, VaultState
from broker.keys.vault_http import MAX_ANSWER_BYTES
from broker.keys.vault_pool import RequestsExchange
from broker.keys.vault_settings import VaultSettings
from tests.peers import authority

pytestmark = pytest.mark.peers

SHORT: Final = timedelta(milliseconds=500)
LONG: Final = timedelta(seconds=20)
"""For what comes in time, also on a busy machine."""

HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n"

Serve = Callable[..., tuple[str, RequestsExchange]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server that sends a beginning and then, now and then, a part; what asks it."""
    root = authority.make_root("limits")
    server = authority.make_server(root, ["127.0.0.1"])
    certificate, key, bundle = authority.write_server_files(tmp_path, server, root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    ended = threading.Event()
    with contextlib.ExitStack() as stack:

        def start(
            beginning: bytes, part: bytes, pause: float, limit: timedelta
        ) -> tuple[str, RequestsExchange]:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def answer() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        taken, _ = listener.accept()
                        with (
                            contextlib.suppress(OSError),
                            taken,
                            context.wrap_socket(taken, server_side=True) as connection,
                        ):
                            connection.recv(65536)
                            connection.sendall(beginning)
                            while part and not ended.wait(pause):
                                connection.sendall(part)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            stack.callback(thread.join, 30)
            # A listener's close wakes nobody who accepts; its shutdown does.
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            stack.callback(ended.set)
            settings = VaultSettings(
                addresses=(), state_dir=tmp_path, ca_bundle=bundle, timeout=limit
            )
            exchange = RequestsExchange(settings)
            stack.callback(exchange.close)
            return f"https://127.0.0.1:{listener.getsockname()[1]}", exchange

        yield start


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(HEAD % 1000 + b"\r\n", id="body"),
        pytest.param(HEAD % 1000 + b"X-Slow: ", id="head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", id="chunk"),
    ],
)
def test_server_that_sends_a_byte_now_and_then_is_slow(serve: Serve, beginning: bytes) -> None:
    """Each byte comes within the limit of one read, and the request takes no longer for it."""
    address, exchange = serve(beginning, b" ", 0.1, SHORT)
    with pytest.raises(Away) as raised:
        exchange.send(address, "GET", "/v1/x", {}, None, certificate=None)
    assert raised.value.state is VaultState.SLOW
    assert not raised.value.left_nothing


def test_answer_without_end_is_a_fault_of_the_node(serve: Serve) -> None:
    """Told before the memory is full of it."""
    address, exchange = serve(HEAD % 10**10 + b"\r\n", b" " * 1024 * 1024, 0, LONG)
    with pytest.raises(Away, match=f"larger than {MAX_ANSWER_BYTES} bytes") as raised:
        exchange.send(address, "GET", "/v1/x", {}, None, certificate=None)
    assert raised.value.state is VaultState.FAILING


def test_answer_in_time_is_taken(serve: Serve) -> None:
    """Whatever the limit does meanwhile, and the next one as well."""
    address, exchange = serve(HEAD % 2 + b"Connection: close\r\n\r\n{}", b"", 0, LONG)
    for _ in range(3):
        answer = exchange.send(address, "GET", "/v1/x", {}, None, certificate=None)
        assert (answer.status, answer.body) == (200, b"{}")
