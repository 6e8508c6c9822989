"""Parts of the configuration that need a process of their own."""
