"""mlapp's server beside its peers: the same model, the same requests, in turn on one machine."""
