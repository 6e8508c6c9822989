"""The hostile CA: strict where it should be, and wrong exactly as it is told."""
