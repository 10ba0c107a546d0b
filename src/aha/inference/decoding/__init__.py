"""How the built-in engine decodes: caches, one decode step for each family and kind of device, drafts, CUDA graphs."""
