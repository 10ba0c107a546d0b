"""Programs of unknown intent, run where they can reach nothing: proven isolation or a refusal, never a best effort."""
