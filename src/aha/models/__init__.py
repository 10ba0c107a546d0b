"""The policy itself: DeepSeek-V3 (MLA, DeepSeekMoE, multi-token prediction) or a dense decoder (Qwen2, Qwen3, Llama).

With it come its cache and its checkpoints. `language_model.py` has what both kinds offer to the rest of the package.

Import what you need from the module that has it, for example `from aha.models.config import DeepseekV3Config`: this
page stays empty so that reading a configuration never imports torch.
"""
