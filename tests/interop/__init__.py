"""Real peers against us, and us against real peers."""
