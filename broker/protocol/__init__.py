"""ACME as values, tables and rules.

The lowest room of the house.  It serves both of our sides, the server that
internal clients talk to and the client that talks to upstream CAs, and knows
neither the time nor the network: bytes, times and nonces arrive as arguments,
results leave as values or as exceptions.
"""
