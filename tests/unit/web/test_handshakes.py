"""What the log tells of handshakes that fail."""

import ssl

from structlog.testing import capture_logs

from broker.web.handshakes import PAUSE, HandshakeLog

MINUTE = PAUSE.total_seconds()


def refused(reason: str) -> ssl.SSLCertVerificationError:
    """Return what OpenSSL's no to a client certificate becomes."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = reason
    return error


def test_refused_certificate_is_a_line_with_peer_and_reason() -> None:
    """Whoever looks for why somebody cannot come in finds it."""
    log = HandshakeLog("https://127.0.0.1:9443")
    with capture_logs() as lines:
        log.failed("192.0.2.7", refused("certificate has expired"), at=5.0)
    assert lines == [
        {
            "event": "client certificate refused",
            "log_level": "warning",
            "listener": "https://127.0.0.1:9443",
            "peer": "192.0.2.7",
            "reason": "certificate has expired",
            "left_out_before": 0,
        }
    ]


def test_there_is_a_line_a_minute_at_most() -> None:
    """The next one tells how many were left out."""
    log = HandshakeLog("https://127.0.0.1:9443")
    with capture_logs() as lines:
        for second in (0.0, 1.0, MINUTE - 1, MINUTE, 2 * MINUTE):
            log.failed("192.0.2.7", refused("self-signed certificate"), at=second)
    assert [line["left_out_before"] for line in lines] == [0, 2, 0]


def test_other_failures_are_no_warning() -> None:
    """Scanners come all day; they take no refused certificate's line either."""
    log = HandshakeLog("https://127.0.0.1:9443")
    with capture_logs() as lines:
        log.failed("192.0.2.7", ssl.SSLError(1, "wrong version number"), at=0.0)
        log.failed("192.0.2.7", ConnectionResetError(), at=1.0)
        log.failed("192.0.2.7", refused("certificate has expired"), at=2.0)
    assert [line["log_level"] for line in lines] == ["debug", "debug", "warning"]


def alert(reason: str) -> ssl.SSLError:
    """Return what an alert of the client becomes."""
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


def test_clients_that_do_not_believe_us_are_a_line_a_minute_of_their_own() -> None:
    """A node whose clock is wrong can tell the broker in no other way."""
    log = HandshakeLog("https://127.0.0.1:8445")
    with capture_logs() as lines:
        log.failed("192.0.2.7", alert("SSLV3_ALERT_BAD_CERTIFICATE"), at=0.0)
        log.failed("192.0.2.7", refused("certificate has expired"), at=1.0)
        log.failed("192.0.2.8", alert("SSLV3_ALERT_CERTIFICATE_EXPIRED"), at=2.0)
        log.failed("192.0.2.8", alert("TLSV1_ALERT_UNKNOWN_CA"), at=MINUTE)
        log.failed("192.0.2.9", alert("TLSV1_ALERT_PROTOCOL_VERSION"), at=2 * MINUTE)
    told = [(line["event"], line["peer"]) for line in lines]
    assert told == [
        ("own certificate not believed", "192.0.2.7"),
        ("client certificate refused", "192.0.2.7"),
        ("own certificate not believed", "192.0.2.8"),
        ("handshake failed", "192.0.2.9"),
    ]
    assert lines[0]["reason"] == "sslv3_alert_bad_certificate"
    assert lines[2]["left_out_before"] == 1
