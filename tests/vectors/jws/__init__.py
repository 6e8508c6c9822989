"""Makes tests/vectors/jws_requests.json."""
