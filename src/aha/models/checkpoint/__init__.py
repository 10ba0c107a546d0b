"""Model folders in and out: Hugging Face, adapters, GGUF."""
