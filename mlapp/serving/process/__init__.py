"""The server process: startup, workers, sockets, shutdown."""
