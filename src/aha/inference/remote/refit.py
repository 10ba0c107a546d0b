"""New weights for rollout servers: as a folder on a disk that both sides see, or through vLLM's transfer routes.

Either way all tensors go out under their Hugging Face names, one per expert, the routers' biases included: a server
that misses those routes differently from the trainer, and nothing says so.
"""

from __future__ import annotations

import importlib
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from aha.errors import GenerationError
from aha.inference.remote.http_json import call
from aha.models.checkpoint.hf import HfTensors, save_pretrained
from aha.models.language_model import LanguageModel
from aha.rollout_servers import RolloutServersConfig

KEPT_VERSIONS = 2
"""Folders that stay: the one in use, and the one before."""


SendTensor = Callable[[Tensor], Any]
"""Broadcasts a tensor to all servers."""


class DiskRefit:
    """Writes a checkpoint folder per version and tells the servers to load it.

    vLLM loads from a folder only through its development route `/collective_rpc`, which wants VLLM_SERVER_DEV_MODE=1.
    """

    def __init__(self, config: RolloutServersConfig) -> None:
        self._config = config

    def send(self, model: LanguageModel, version: int) -> None:
        """Writes, announces, and removes what is older."""
        config = self._config
        place = Path(config.folder).resolve()
        folder = place / f"version-{version:06d}"
        place.mkdir(parents=True, exist_ok=True)
        save_pretrained(model, folder)
        for url in config.urls:
            if config.kind == "sglang":
                body = {"model_path": str(folder), "weight_version": str(version), "flush_cache": True}
                answer = call(url + "/update_weights_from_disk", body, config.seconds, config.retries)
                if not isinstance(answer, dict) or not answer.get("success", False):
                    said = answer.get("message", answer) if isinstance(answer, dict) else answer
                    raise GenerationError(f"{url} did not load version {version}: {str(said)[:200]}")
            else:
                body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
                call(url + "/collective_rpc", body, config.seconds, config.retries)
                call(url + "/reset_prefix_cache", {}, config.seconds, config.retries)
        for old in sorted(place.glob("version-*"))[:-KEPT_VERSIONS]:
            shutil.rmtree(old, ignore_errors=True)


class TransferRefit:
    """vLLM's native routes: once init_weight_transfer_engine, then start, update (repeated), finish.

    Tensors travel by broadcast from the trainer (rank 0) to all server workers. With `nccl` the group is vLLM's own,
    from its package, which has to be installed beside the trainer; `gloo` is for servers of the project's tests, on
    machines without GPUs.
    """

    def __init__(self, config: RolloutServersConfig) -> None:
        self._config = config
        self._send_tensor: SendTensor | None = None

    def send(self, model: LanguageModel, version: int) -> None:
        """Announces chunk after chunk, and broadcasts it while the servers wait for it."""
        if self._send_tensor is None:
            self._join()
        self._all("/start_weight_update", {"is_checkpoint_format": True})
        for chunk in _chunks(HfTensors(model), self._config.chunk_mib << 20):
            announced = {
                "names": [name for name, _ in chunk],
                "dtype_names": [str(tensor.dtype).removeprefix("torch.") for _, tensor in chunk],
                "shapes": [list(tensor.shape) for _, tensor in chunk],
            }
            self._all(
                "/update_weights", {"update_info": announced}, meanwhile=lambda chunk=chunk: self._broadcast(chunk)
            )
        self._all("/finish_weight_update", {})
        self._all("/reset_prefix_cache", {})

    def _join(self) -> None:
        config = self._config
        sizes = [_world_size(url, config) for url in config.urls]
        world, offset = 1 + sum(sizes), 1
        calls = []
        for url, size in zip(config.urls, sizes, strict=True):
            info = {
                "master_address": config.master_address,
                "master_port": config.master_port,
                "rank_offset": offset,
                "world_size": world,
            }
            calls.append((url, "/init_weight_transfer_engine", {"init_info": info}))
            offset += size

        def join() -> None:
            self._send_tensor = TRANSPORTS[config.backend](config.master_address, config.master_port, world)

        self._each(calls, join)

    def _broadcast(self, chunk: list[tuple[str, Tensor]]) -> None:
        assert self._send_tensor is not None
        for _, tensor in chunk:
            self._send_tensor(tensor.contiguous())

    def _all(self, route: str, body: Any, meanwhile: Any = None) -> None:
        self._each([(url, route, body) for url in self._config.urls], meanwhile)

    def _each(self, calls: list[tuple[str, str, Any]], meanwhile: Any) -> None:
        """Posts to all servers at once, does our part meanwhile, and waits for their answers."""
        errors: list[Exception] = []

        def tell(url: str, route: str, body: Any) -> None:
            try:
                call(url + route, body, self._config.seconds)
            except GenerationError as error:
                errors.append(error)

        threads = [threading.Thread(target=tell, args=each, daemon=True) for each in calls]
        for thread in threads:
            thread.start()
        if meanwhile is not None:
            worker = threading.Thread(target=_quietly(meanwhile, errors), daemon=True)
            worker.start()
            while worker.is_alive() and not errors:
                worker.join(0.05)
        for thread in threads:
            thread.join()
        if errors:
            raise GenerationError(f"the weights did not reach every server: {errors[0]}") from errors[0]


def _world_size(url: str, config: RolloutServersConfig) -> int:
    """How many workers a server has. Raises GenerationError where its answer does not say."""
    answer = call(url + "/get_world_size", None, config.seconds, config.retries)
    size = answer.get("world_size") if isinstance(answer, dict) else None
    if type(size) is not int or size < 1:
        raise GenerationError(f"{url}/get_world_size gives no 'world_size' of at least 1: {str(answer)[:200]}")
    return size


def _gloo(address: str, port: int, world: int) -> SendTensor:
    store = dist.TCPStore(address, port, world, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    group: Any = dist.ProcessGroupGloo(dist.PrefixStore("weights", store), 0, world, timedelta(seconds=60))  # type: ignore[attr-defined]
    return lambda tensor: group.broadcast(tensor, 0).wait()


def _nccl(address: str, port: int, world: int) -> SendTensor:
    """VLLM's communicator. Not run by the tests: it takes GPUs on both sides."""
    try:
        communicators = importlib.import_module("vllm.distributed.device_communicators.pynccl")
        groups = importlib.import_module("vllm.distributed.utils")
    except ModuleNotFoundError as error:
        raise GenerationError(
            "refit = 'transfer' over nccl uses the package vllm beside the trainer; install it, or take refit: disk"
        ) from error
    group = groups.StatelessProcessGroup.create(host=address, port=port, rank=0, world_size=world)
    communicator = communicators.PyNcclCommunicator(group, device="cuda")
    return lambda tensor: communicator.broadcast(tensor, src=0)


TRANSPORTS: dict[str, Callable[[str, int, int], SendTensor]] = {"gloo": _gloo, "nccl": _nccl}


def _quietly(action: Any, errors: list[Exception]) -> Any:
    def run() -> None:
        try:
            action()
        except (RuntimeError, ValueError, OSError) as error:  # what the process group raises
            errors.append(error)

    return run


def _chunks(tensors: HfTensors, limit: int) -> Iterator[list[tuple[str, Tensor]]]:
    """Tensors in order, as many at a time as `limit` bytes hold (or a single larger one)."""
    chunk: list[tuple[str, Tensor]] = []
    size = 0
    for name in tensors:
        tensor = tensors[name]
        if chunk and size + tensor.nbytes > limit:
            yield chunk
            chunk, size = [], 0
        chunk.append((name, tensor))
        size += tensor.nbytes
    if chunk:
        yield chunk


REFITS: dict[str, type[DiskRefit] | type[TransferRefit]] = {"disk": DiskRefit, "transfer": TransferRefit}
