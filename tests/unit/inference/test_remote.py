"""Rollouts from servers over HTTP: the same samples as from the engine, new weights, and every way to fail."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aha.errors import GenerationError
from aha.inference.engine import Engine
from aha.inference.remote.generator import RemoteGenerator
from aha.inference.remote.http_json import call
from aha.models.checkpoint.hf import save_pretrained
from aha.models.config.presets import preset
from aha.models.language_model import LanguageModel
from aha.models.model_from_config import build
from aha.protocols import Generator
from aha.rollout_servers import RolloutServersConfig
from aha.types import FinishReason, Request, SamplingParams

from ...rollout_server import SAMPLING, RolloutServer

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "moe_intermediate_size": 32}
ASKED = [
    Request((5, 6, 7), SamplingParams(0.0, 1.0, 12, (3,), n=1)),
    Request((9, 8), SamplingParams(1.0, 1.0, 12, (3, 4), n=4, seed=5)),
]


def make_model(seed: int) -> LanguageModel:
    model = build(preset("tiny", vocab_size=40, n_routed_experts=4, **SMALL))
    model.init_weights(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for router in model.routers():
            router.e_score_correction_bias.normal_(generator=torch.Generator().manual_seed(seed))
        model.embed_tokens.weight.mul_(20.0)
    return model


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RolloutServer]:
    save_pretrained(make_model(0), tmp_path / "served")
    server = RolloutServer(tmp_path / "served")
    yield server
    server.close()


def config(server: RolloutServer, tmp_path: Path, **changes: object) -> RolloutServersConfig:
    settings = {"urls": [server.url], "folder": str(tmp_path / "shared"), "seconds": 5.0, "retries": 2}
    settings["probe_gap"] = 0.01  # these servers compute in float32, as the trainer does
    return RolloutServersConfig.model_validate({**settings, **changes})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_the_servers_samples_are_the_engines(server: RolloutServer, tmp_path: Path, kind: str) -> None:
    model = make_model(1)
    remote = RemoteGenerator(config(server, tmp_path, kind=kind), model, 64, weights_version=3)
    assert isinstance(remote, Generator) and remote.weights_version == 3
    expected = Engine(model, 32, 64).generate(ASKED)
    actual = remote.generate(ASKED)
    for ours, theirs in zip(expected, actual, strict=True):
        assert [one.token_ids for one in ours] == [one.token_ids for one in theirs]
        assert [one.finish_reason for one in ours] == [one.finish_reason for one in theirs]
        assert all(one.weights_version == 3 for one in theirs)
        gaps = [
            abs(p - q) for a, b in zip(ours, theirs, strict=True) for p, q in zip(a.logprobs, b.logprobs, strict=True)
        ]
        assert max(gaps) < 1e-5
    pairs = [((5, 6), (7, 8, 9)), ((1,), (2,))]
    for ours, theirs in zip(Engine(model, 4, 64).score(pairs), remote.score(pairs), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5)
    assert [token for token, _ in remote.stream(ASKED[0])] == list(expected[0][0].token_ids)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize("name", SAMPLING)
def test_what_a_models_folder_suggests_does_not_change_the_sampling(
    server: RolloutServer, tmp_path: Path, kind: str, name: str
) -> None:
    server.suggested = {name: 1 if name == "top_k" else 0.5}
    remote = RemoteGenerator(config(server, tmp_path, kind=kind), make_model(1), 64)
    expected = Engine(make_model(1), 32, 64).generate(ASKED)
    assert len({one.token_ids for one in expected[1]}) > 1
    actual = remote.generate(ASKED)
    assert [[one.token_ids for one in row] for row in actual] == [[one.token_ids for one in row] for row in expected]


@contextmanager
def server_process(folder: Path, *flags: str) -> Iterator[str]:
    """The same server in a process of its own; yields its address."""
    save_pretrained(make_model(0), folder)
    command = [sys.executable, str(Path(__file__).resolve().parents[2] / "rollout_server.py"), str(folder), *flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_new_weights_arrive_on_disk_with_the_routers_biases(server: RolloutServer, tmp_path: Path, kind: str) -> None:
    model = make_model(1)
    remote = RemoteGenerator(config(server, tmp_path, kind=kind), model, 64)
    for version in (1, 2, 3):
        remote.load_weights(make_model(10 + version).state_dict(), version)
        assert remote.weights_version == version
        for own, theirs in zip(model.routers(), server.model.routers(), strict=True):
            assert torch.equal(own.e_score_correction_bias, theirs.e_score_correction_bias)
        check_samples(remote, version)
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["version-000002", "version-000003"]


def check_samples(remote: RemoteGenerator, version: int) -> None:
    expected = Engine(make_model(10 + version), 32, 64).generate(ASKED)
    actual = remote.generate(ASKED)
    assert [[one.token_ids for one in row] for row in actual] == [[one.token_ids for one in row] for row in expected]


def test_new_weights_arrive_through_vllms_transfer_routes(tmp_path: Path) -> None:
    with server_process(tmp_path / "served") as url:
        settings = RolloutServersConfig(
            urls=(url,),
            refit="transfer",
            backend="gloo",
            chunk_mib=1,
            seconds=20.0,
            master_port=free_port(),
            probe_gap=0.01,
        )
        remote = RemoteGenerator(settings, make_model(1), 64)
        for version in (1, 2):
            remote.load_weights(make_model(10 + version).state_dict(), version)
            check_samples(remote, version)
        calls = call(f"{url}/calls", None, 5.0)
    routes = [route for route, _ in calls if "weight" in route]
    once, start, update, finish = (
        f"/{name}"
        for name in ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update")
    )
    assert routes[:4] == [once, start, update, finish] and routes.count(once) == 1 and routes.count(finish) == 3
    names = [name for route, body in calls if route == update for name in body["update_info"]["names"]]
    assert any(name.endswith("mlp.experts.3.down_proj.weight") for name in names)
    assert any(name.endswith("e_score_correction_bias") for name in names)


def test_stale_weights_are_noticed(server: RolloutServer, tmp_path: Path) -> None:
    server.stale = True
    with pytest.raises(GenerationError, match="computes with other weights than version 0"):
        RemoteGenerator(config(server, tmp_path), make_model(1), 64)
    with server_process(tmp_path / "other", "--stale") as url:
        settings = RolloutServersConfig(
            urls=(url,), refit="transfer", backend="gloo", master_port=free_port(), probe_gap=0.01
        )
        with pytest.raises(GenerationError, match="computes with other weights than version 0"):
            RemoteGenerator(settings, make_model(1), 64)


def test_a_version_that_is_named_wrong_is_noticed(server: RolloutServer, tmp_path: Path) -> None:
    remote = RemoteGenerator(config(server, tmp_path, kind="sglang"), make_model(1), 64, weights_version=7)
    server.version = "6"
    with pytest.raises(GenerationError, match="weights '6', expected 7"):
        remote.generate(ASKED)


@pytest.mark.parametrize("failure", ["500", "503", "429", "disconnect", "cut"])
def test_what_may_pass_is_tried_again(server: RolloutServer, tmp_path: Path, failure: str) -> None:
    remote = RemoteGenerator(config(server, tmp_path), make_model(1), 64)
    expected = remote.generate(ASKED[:1])
    server.failures = [failure]
    assert remote.generate(ASKED[:1]) == expected
    server.failures = [failure] * 9
    with pytest.raises(GenerationError, match=r"\(3 tries\)"):
        remote.generate(ASKED[:1])


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("400", "status 400: .*said so"),
        ("garbage", "without 'choices'"),
        ("logprobs", "log-probabilities"),
        ("ids", "without token ids"),
        ("finish", "ended by 'because'"),
    ],
)
def test_what_will_not_pass_is_said_at_once(server: RolloutServer, tmp_path: Path, failure: str, message: str) -> None:
    remote = RemoteGenerator(config(server, tmp_path), make_model(1), 64)
    before = len(server.calls)
    server.failures = [failure]
    with pytest.raises(GenerationError, match=message):
        remote.generate(ASKED[:1])
    assert len(server.calls) == before + 1


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize("token", [-1, 39, 40, 10**12])
def test_ids_that_are_no_tokens_are_refused_with_the_server(
    server: RolloutServer, tmp_path: Path, kind: str, token: int
) -> None:
    model = make_model(1)
    model.num_tokens = 39  # the last of 40 rows is padding
    remote = RemoteGenerator(config(server, tmp_path, kind=kind, probe_gap=0.25), model, 64)
    for asked in (ASKED[0], Request((5, 6, 7), SamplingParams(0.0, 1.0, 12, (3,), n=2))):
        server.failures = [f"token {token}"]
        with pytest.raises(GenerationError, match=rf"{server.url} sampled the token id {token}, .* are 0 to 38"):
            remote.generate([asked])
    server.failures = ["token 38"]
    ((one,),) = remote.generate(ASKED[:1])
    assert one.token_ids[0] == 38


def vllm_choice(**changes: object) -> dict[str, object]:
    sound = {"token_ids": [1], "logprobs": {"token_logprobs": [-1.0]}, "finish_reason": "length"}
    return {"choices": [sound | changes]}


def sglang_sample(**changes: object) -> dict[str, object]:
    sound = {"output_token_logprobs": [[-1.0, 1, None]], "finish_reason": {"type": "length"}}
    return {"meta_info": sound | changes}


@pytest.mark.parametrize(
    ("kind", "answer", "message"),
    [
        ("vllm", vllm_choice(logprobs=[-1.0]), r"'logprobs' must be an object: \[-1.0\]"),
        ("vllm", vllm_choice(logprobs={"token_logprobs": [-(10**400)]}), "log-probabilities are missing"),
        ("vllm", vllm_choice(finish_reason=["stop"]), r"ended by \['stop'\]"),
        ("vllm", {"choices": [{"index": "a"}, {"index": 0}]}, "'index' must be a number: 'a'"),
        ("sglang", ["?"], r"a sample must be an object: '\?'"),
        ("sglang", {"meta_info": [1]}, r"'meta_info' must be an object: \[1\]"),
        ("sglang", sglang_sample(finish_reason="length"), "'finish_reason' must be an object: 'length'"),
        ("sglang", sglang_sample(output_token_logprobs=7), "must be a list: 7"),
        ("sglang", sglang_sample(output_token_logprobs=[[-1.0]]), r"\[log-probability, token id\]: \[-1.0\]"),
        ("sglang", sglang_sample(output_token_logprobs=[-1.0]), r"\[log-probability, token id\]: -1.0"),
    ],
)
def test_answers_of_other_shapes_are_named_with_the_server(
    server: RolloutServer, tmp_path: Path, kind: str, answer: object, message: str
) -> None:
    remote = RemoteGenerator(config(server, tmp_path, kind=kind), make_model(1), 64)
    server.answers["/v1/completions" if kind == "vllm" else "/generate"] = answer
    with pytest.raises(GenerationError, match=f"^{server.url}: .*{message}"):
        remote.generate(ASKED[:1])


@pytest.mark.parametrize(
    ("kind", "answer", "message"),
    [
        ("vllm", {"choices": [{"prompt_logprobs": [None, [1]]}]}, r"a position must be an object: \[1\]"),
        ("vllm", {"choices": [{"prompt_logprobs": [None, {"2": -1.0}]}]}, "'2' must be an object: -1.0"),
        ("sglang", [1], r"the answer must be an object: \[1\]"),
        ("sglang", {"meta_info": "none"}, "'meta_info' must be an object: 'none'"),
        ("sglang", {"meta_info": {"input_token_logprobs": [[-1.0]]}}, r"\[log-probability, token id\]: \[-1.0\]"),
    ],
)
def test_scores_of_other_shapes_are_named_with_the_server(
    server: RolloutServer, tmp_path: Path, kind: str, answer: object, message: str
) -> None:
    remote = RemoteGenerator(config(server, tmp_path, kind=kind), make_model(1), 64)
    server.answers["/v1/completions" if kind == "vllm" else "/generate"] = answer
    with pytest.raises(GenerationError, match=f"^{server.url}: .*{message}"):
        remote.score([((1,), (2,))])


@pytest.mark.parametrize(
    ("answer", "said"), [(["no"], r"\['no'\]"), ({"success": False, "message": "no room"}, "no room"), ({}, "{}")]
)
def test_a_server_that_does_not_say_that_it_loaded_is_refused(
    server: RolloutServer, tmp_path: Path, answer: object, said: str
) -> None:
    server.answers["/update_weights_from_disk"] = answer
    with pytest.raises(GenerationError, match=f"^{server.url} did not load version 0: {said}$"):
        RemoteGenerator(config(server, tmp_path, kind="sglang"), make_model(1), 64)


@pytest.mark.parametrize("answer", [{}, [1], {"world_size": "1"}, {"world_size": 0}])
def test_a_server_that_does_not_say_its_size_is_refused(server: RolloutServer, tmp_path: Path, answer: object) -> None:
    server.answers["/get_world_size"] = answer
    settings = config(server, tmp_path, refit="transfer", backend="gloo", master_port=free_port())
    with pytest.raises(GenerationError, match=f"^{server.url}/get_world_size gives no 'world_size' of at least 1: "):
        RemoteGenerator(settings, make_model(1), 64)


def test_an_answer_nested_too_deeply_is_not_json(server: RolloutServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "dumps", lambda value: "[" * 200_000 if value is server.calls else "{}")
    with pytest.raises(GenerationError, match="not JSON"):
        call(f"{server.url}/calls", None, 5.0)


def test_a_slow_server_is_not_waited_for(server: RolloutServer, tmp_path: Path) -> None:
    remote = RemoteGenerator(config(server, tmp_path), make_model(1), 64)
    hasty = RemoteGenerator(config(server, tmp_path, seconds=0.3, retries=0), make_model(1), 64)
    server.failures = ["slow"]
    with pytest.raises(GenerationError, match=r"within 0\.3 s"):
        hasty.generate(ASKED[:1])
    assert len(remote.generate(ASKED)) == 2


def test_servers_that_are_not_there(tmp_path: Path, server: RolloutServer) -> None:
    gone = config(server, tmp_path, urls=[f"http://127.0.0.1:{free_port()}"], retries=0)
    with pytest.raises(GenerationError, match="is the server up"):
        RemoteGenerator(gone, make_model(1), 64)


def test_requests_that_cannot_be_served(server: RolloutServer, tmp_path: Path) -> None:
    remote = RemoteGenerator(config(server, tmp_path), make_model(1), 64)
    for request in (Request((), SamplingParams()), Request((1,), SamplingParams(max_completion_tokens=64))):
        with pytest.raises(GenerationError, match="at most 64 together"):
            remote.generate([request])
    with pytest.raises(GenerationError, match="no stop sequences"):
        remote.generate([Request((1,), SamplingParams(max_completion_tokens=4, stop_sequences=((2,),)))])
    remote.cancel("gone")
    ((one,),) = remote.generate([Request((1, 2), SamplingParams(max_completion_tokens=4), "gone")])
    assert one.finish_reason is FinishReason.CANCELLED and not one.token_ids


@pytest.mark.parametrize(("kind", "remedy"), [("vllm", "--logprobs-mode"), ("sglang", "SGLANG_RETURN_ORIGINAL")])
def test_log_probabilities_of_another_temperature_are_refused(
    server: RolloutServer, tmp_path: Path, kind: str, remedy: str
) -> None:
    model = make_model(1)
    sampling = SamplingParams(0.7, max_completion_tokens=12, n=4, processed_logprobs=True)
    asked = [Request((9, 8), sampling), Request((5, 6), sampling)]
    remote = RemoteGenerator(config(server, tmp_path, kind=kind), model, 64)
    remote.generate([Request((9, 8), replace(sampling, temperature=1.0))])
    remote.generate([Request((9, 8), replace(sampling, processed_logprobs=False))])
    with pytest.raises(GenerationError, match=remedy):
        remote.generate(asked)
    server.processed_logprobs = True
    for request, samples in zip(asked, remote.generate(asked), strict=True):
        pairs = [(request.prompt_token_ids, one.token_ids) for one in samples]
        for one, own in zip(samples, Engine(model, 1, 1).score(pairs, 0.7), strict=True):
            assert one.logprobs == pytest.approx(own, abs=1e-4)


def test_settings_that_cannot_work() -> None:
    for settings, message in (
        ({"urls": ["http://a"]}, "name a folder"),
        ({"urls": ["http://a"], "kind": "sglang", "refit": "transfer"}, "routes are vLLM's"),
        ({"urls": ["file:///etc"], "folder": "x"}, "must start with http"),
    ):
        with pytest.raises(ValueError, match=message):
            RolloutServersConfig.model_validate(settings)
