"""Pods of a cluster: what their annotations ask for is put beside them as they are made.

An adapter towards the cluster's API server.  It decides nothing about names: it asks the broker,
as any operator's program does, and turns the answer into a patch or a sentence.
"""
