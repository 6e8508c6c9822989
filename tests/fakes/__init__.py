"""Stand-ins that work: simpler than what they stand for, and never mocks."""
