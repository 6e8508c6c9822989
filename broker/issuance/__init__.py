"""The workflows: the only room that tells the story of an order.

It speaks to ports (``ports.py``), decides with ``broker.policy`` and moves statuses with
``broker.protocol.transitions``.  It knows no web framework, no database and no CA software.
"""
