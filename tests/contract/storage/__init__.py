"""One suite for every store: what the ports promise, and what each adapter adds to it."""
