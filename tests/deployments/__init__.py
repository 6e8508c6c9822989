"""Whole brokers for the suites that need one: written configuration, a process of its own."""
