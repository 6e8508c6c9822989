"""The skin: HTTP in, HTTP out.

It knows URLs, headers and problem documents.  It does not know what an order is for, who may have
which name, or where anything is kept: the workflows are handed to it.
"""
