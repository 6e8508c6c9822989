"""Validators against servers that do what no decent server does."""
