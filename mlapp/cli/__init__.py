"""The command line: one file a command. Each parses, calls one function of a room below, and prints."""
