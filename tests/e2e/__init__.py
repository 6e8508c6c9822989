"""Whole deployments: Penstock as a process, in front of a CA, with clients of its own."""
