"""Where orders live: the store's port over SQLite, with one writer and durable group commits.

The room knows rows, transactions and what a disk may do to them.  It refuses to know what a
status means: words are compared and written as the workflows give them.
"""
