"""`aha serve`: models of run folders and model folders, the built-in engine, the server, and its pages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from aha.configuration import override_config
from aha.recipes.model_folders import is_run
from aha.recipes.talk_models import find_models, load, run_names
from aha.report.browser import RunBrowser
from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.run import check_exposure, listen, run
from aha.training.interrupts import StopRequested


def serve(
    paths: Sequence[Path], host: str, port: int, api_key: str | None, style: str, overrides: Sequence[str]
) -> None:
    """Serves all models that the paths hold, and pages to talk to them and to watch the runs, until stopped.

    Args:
        paths: run folders, or model folders.
        host: to listen on; other than loopback only with a key.
        port: to listen on; 0 takes a free one.
        api_key: required of clients, or None.
        style: the prompt style of model folders.
        overrides: ``a.b=c`` settings of `ServeConfig`.

    Raises:
        ConfigError: a path holds no model, a setting is wrong, or the address cannot be listened on.
        CheckpointError: a model is damaged.
        StopRequested: by SIGINT or SIGTERM, after running requests had time to end.
    """
    config = override_config(ServeConfig(), {}, overrides)
    check_exposure(host, api_key)
    found = find_models(paths, style)
    listening = listen(host, port)
    models = [load(model, config) for model in found]
    names = run_names(paths)
    app = create_app(models, config, api_key, [RunBrowser(path, names[path]) for path in paths if is_run(path)])
    logging.basicConfig(format="%(message)s")
    logging.getLogger("aha.serve").setLevel(logging.INFO)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}"
    print(f"serving at {address}/v1", flush=True)
    for model in found:
        print(f"  {model.name:<24}{model.style.title}", flush=True)
    print(f"the page is {address}/" + (f", the runs are at {address}/run" if names else ""), flush=True)
    print("a key is required" if api_key else "for this machine only, without a key", "- stop with Ctrl-C", flush=True)

    def end_work() -> None:
        for model in models:
            model.worker.stop()

    number = run(app, listening, config, end_work)
    if number:
        raise StopRequested(number)
