"""Agents by the thousand, in processes of their own, speaking the protocol of the channel."""
