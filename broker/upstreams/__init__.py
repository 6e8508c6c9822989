"""The CAs that Penstock asks: their protocol spoken, their challenges answered.

An adapter here turns what a CA does into one of the outcomes of ``issuance.errors`` and judges
no certificate.  It does not know our own clients, and keeps nothing durable.
"""
