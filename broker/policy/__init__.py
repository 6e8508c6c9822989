"""Decisions, pure: facts and a document go in, findings and a decision come out."""
