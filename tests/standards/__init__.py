"""Everything the documents say about the code and about standards, checked."""
