"""A real cluster of one node, made from nothing, and what is tried on it.

Nothing of it needs a registry of images or another machine: the programs are built from pinned Go
modules, the images from Debian packages and from this clone.
"""
