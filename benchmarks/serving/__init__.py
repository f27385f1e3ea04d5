"""Compares mlapp's server with its peers: the same model and requests, in turns on one machine."""
