"""Runs the model: queue, batches, streams, and switching versions."""
