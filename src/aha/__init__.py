"""aha: the DeepSeek-V3 model and the DeepSeek-R1 training recipes, from random weights on a laptop to a GPU node."""

__version__ = "0.1.0"
