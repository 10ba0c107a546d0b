"""The policy itself: DeepSeek-V3 (MLA, DeepSeekMoE, multi-token prediction), its latent cache and its checkpoints.

Import what you need from the module that has it, for example `from aha.models.config import DeepseekV3Config`: this
page stays empty so that reading a configuration never imports torch.
"""
