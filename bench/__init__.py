"""Measuring: a load generator of our own, the servers it is pointed at, and the report."""
