"""Settings that every test runs under: one compute thread per process, and no network."""

from __future__ import annotations

import os

# Before anything imports torch: see aha.training.launch.WORKER_SETTINGS.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)  # other work on the machine is no reason to fail
settings.load_profile("no deadline")
