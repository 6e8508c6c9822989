"""One suite over every keeper of keys, and what Vault alone can do and refuse."""
