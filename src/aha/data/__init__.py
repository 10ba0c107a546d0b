"""From problems and documents to token rows: the pretraining stream, conversations with loss masks, packing."""
