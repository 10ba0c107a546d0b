"""Text to token ids and back: the tokenizer, the templates, the think/answer parser. Nothing else does it."""
