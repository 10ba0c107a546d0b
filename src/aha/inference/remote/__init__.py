"""Sampling on vLLM or SGLang servers over HTTP: token ids in and out, so that nothing is tokenized twice."""
