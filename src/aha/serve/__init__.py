"""An OpenAI-compatible server for trained models. It meets the engine only at `protocols.BatchGenerator`."""
