"""Penstock, a brokered ACME proxy: internal servers ask it, it asks the real CA."""
