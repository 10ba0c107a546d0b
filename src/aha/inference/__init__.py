"""The engine: token ids in, token ids and log-probabilities out. It never sees text."""
