"""The policy itself: DeepSeek-V3 (MLA, DeepSeekMoE, multi-token prediction) or a dense decoder (Qwen2, Qwen3, Llama).

A model is weights and a forward pass; `language_model.py` has what both kinds offer to the rest of the package.

    config/        sizes of each family, presets, counts and estimates, without torch
    checkpoint/    Hugging Face folders, adapters, GGUF
    attention/     one door and its backends; experts/ likewise

Import what you need from the module that has it: this page stays empty so that reading a configuration never imports
torch.
"""
