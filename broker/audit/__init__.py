"""The audit trail leaves the broker here, and is read back and verified.

What a record is, and how the chain is made, is ``issuance.audit_chain``: the store has to know it.
"""
