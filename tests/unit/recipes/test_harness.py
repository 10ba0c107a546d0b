"""The lm-evaluation-harness runs its tasks on our models, on files, without network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.text.tokenizer import Tokenizer

pytest.importorskip("lm_eval", reason="lm-eval is not installed: install the extra eval")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def harness(base: Tokenizer, tmp_path: Path) -> Any:
    from aha.recipes.harness import HarnessModel

    return HarnessModel(tmp_path / "run" / "base" / "model", max_context=64)


def instance(*arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, tuple(arguments), 0)


def test_scores_are_the_engines(harness: Any, base: Tokenizer, tmp_path: Path) -> None:
    engine = Engine(load_pretrained(tmp_path / "run" / "base" / "model"), 4, 64)
    prompt = [base.bos_id, *base.encode("What is 2+2?")]
    ((expected, *_),) = [engine.score([(prompt, base.encode(" 4"))])]
    ((total, _),) = harness.loglikelihood([instance("What is 2+2?", " 4")])
    assert total == pytest.approx(sum(expected), abs=1e-5)
    assert harness.loglikelihood([instance("What is 2+2? ", "4")])[0][0] == pytest.approx(total, abs=1e-5)


def test_what_greedy_decoding_says_is_marked(harness: Any, base: Tokenizer) -> None:
    verdicts = []
    for context in (
        text for word in ("What", "is", "2", "+", "?", "The", "answer", "4", ".") for text in (word, word * 2)
    ):
        (said,) = harness.generate_until([instance(context, {"max_gen_toks": 1})])
        alone = base.encode(said)
        if said.strip() and len(alone) == 1 and base.encode(context + said) == [*base.encode(context), *alone]:
            other = "7" if said != "7" else "8"
            verdicts.append([harness.loglikelihood([instance(context, text)])[0][1] for text in (said, other)])
    assert verdicts and all(verdict == [True, False] for verdict in verdicts)


def test_long_texts_are_scored_in_windows(harness: Any, base: Tokenizer) -> None:
    text = "What is 2+2? The answer is 4. " * 12
    assert len(base.encode(text)) > 2 * 64
    (total,) = harness.loglikelihood_rolling([instance(text)])
    (half,) = harness.loglikelihood_rolling([instance(text[: len(text) // 2])])
    assert math.isfinite(total) and total < half < 0


def test_generation_ends_where_it_is_told_to(harness: Any) -> None:
    settings = {"max_gen_toks": 24, "do_sample": True, "temperature": 1.0}
    (free,) = harness.generate_until([instance("What", settings)])
    assert len(free) > 4
    stop = free[3:5]
    (cut,) = harness.generate_until([instance("What", {**settings, "until": [stop]})])
    assert cut == free[: free.index(stop)]


def test_a_prompt_is_not_given_up_for_the_room_of_its_completion(harness: Any) -> None:
    """Tasks may allow more tokens than the context has: a prompt that fits stays whole, and somebody is told."""
    prompt = harness._context("What is 2+2?")
    assert harness._fitting("What is 2+2?", 24) == (prompt, 24)
    with pytest.warns(UserWarning, match="raise max_context"):
        assert harness._fitting("What is 2+2?", 2048) == (prompt, 64 - len(prompt))
    with pytest.warns(UserWarning, match="cut off at 16 tokens"):
        ids, room = harness._fitting("2+2? " * 100, 2048)
    assert (len(ids), room) == (48, 16)
    with pytest.warns(UserWarning, match="raise max_context"):
        (said,) = harness.generate_until([instance("2+2? " * 100, {"max_gen_toks": 24})])
    assert isinstance(said, str)


def test_a_task_of_the_harness_runs(harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": "What is 2+2?", "choices": [" 4", " 2"], "gold": 0}] * 4
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: choices\n"
        "doc_to_target: gold\nmetric_list: [{metric: acc}]\n"
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = lm_eval.simple_evaluate(model=harness, tasks=["sums"], task_manager=manager, bootstrap_iters=0)
    assert results is not None and results["results"]["sums"]["acc,none"] in (0.0, 1.0)
