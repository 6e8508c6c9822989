"""The commands: they read a configuration, ask for something to be done and print what came."""
