"""The model: queue, batches, streams, and switching versions."""
