"""A sandbox runs what it should, refuses where it is not proven, and keeps programs apart."""

import dataclasses
import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.errors import ConfigError, GradingError
from aha.grading.sandbox import backends, proof
from aha.grading.sandbox.checks import LocalRunner, make_runner
from aha.grading.sandbox.inside.values import decode, encode
from aha.grading.sandbox.library import Library, installed_files
from aha.grading.sandbox.local import Sandbox
from aha.grading.sandbox.outcome import Ending, FunctionTest, Outcome, SandboxConfig, same_output
from aha.grading.sandbox.remote import RemoteSandbox

TEST = FunctionTest("f", "def check(candidate):\n    assert candidate(2, by=3) == (6, {'x': [1.5, None]})\n")
RIGHT = "def f(a, by): return a * by, {'x': [1.5, None]}"


def test_a_program_reads_and_prints(runner: LocalRunner) -> None:
    outcome = runner.run("import sys\nname = input()\nprint(f'hello {name}', len(sys.stdin.read()))", "Ada\nrest")
    assert outcome == Outcome(Ending.EXITED, 0, "hello Ada 4\n", "")


def test_what_went_wrong_is_told_without_our_own_lines(runner: LocalRunner) -> None:
    outcome = runner.run("def f(): return 1 / 0\nf()")
    assert outcome.exit_code == 1
    assert "ZeroDivisionError" in outcome.stderr
    assert "inside" not in outcome.stderr
    assert runner.run("import sys; sys.exit(7)").exit_code == 7
    assert runner.run("x = (").stderr.count("SyntaxError") == 1


def test_output_beyond_the_limit_ends_a_program(runner: LocalRunner) -> None:
    outcome = runner.run("while True: print('x' * 1000)")
    assert outcome.ending is Ending.OUTPUT
    assert len(outcome.stdout) == runner.programs.config.output_kib << 10


def test_many_programs_share_one_start_and_nothing_else(runner: LocalRunner) -> None:
    runner.run("pass")
    before = runner.programs.starts
    source = (
        "import math, os\nprint(hasattr(math, 'mark'), os.listdir('/tmp'))\nmath.mark = 1\nopen('/tmp/x', 'w').close()"
    )
    assert {runner.run(source).stdout for _ in range(20)} == {"False []\n"}
    assert runner.programs.starts == before


def test_threads_take_turns(runner: LocalRunner) -> None:
    results: list[str] = []
    threads = [threading.Thread(target=lambda n=n: results.append(runner.run(f"print({n})").stdout)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [f"{n}\n" for n in range(8)]


def test_a_sandbox_that_was_killed_is_replaced(runner: LocalRunner) -> None:
    runner.run("pass")
    assert runner.programs._launched is not None
    runner.programs._launched.kill()
    runner.programs._launched = None
    assert runner.run("print(1)").stdout == "1\n"


def test_a_sandbox_that_dies_under_a_program_gives_no_verdict(runner: LocalRunner) -> None:
    program = runner.programs.open({"mode": "script", "source": "while True: pass"}, "", 30.0)
    assert runner.programs._launched is not None
    first = runner.programs._launched.first_process
    assert first is not None
    signal.pidfd_send_signal(first, signal.SIGKILL)
    with pytest.raises(GradingError):
        program.finish()
    assert runner.run("print(1)").stdout == "1\n"


def test_functions_are_tested(runner: LocalRunner) -> None:
    assert runner.check(RIGHT, TEST).passed
    wrong = runner.check(RIGHT.replace("*", "+"), TEST)
    assert (wrong.passed, wrong.why.split(":")[0]) == (False, "AssertionError")
    assert "ZeroDivisionError" in runner.check("def f(a, by): return 1 / 0", TEST).why
    assert "KeyError" in runner.check("def g(): pass", TEST).why
    assert "exit code 0" in runner.check("import os\ndef f(a, by): os._exit(0)", TEST).why
    assert "time limit" in runner.check("import time\ndef f(a, by): time.sleep(60)", TEST).why


def test_tests_may_loop_expect_errors_and_use_the_prompt(runner: LocalRunner) -> None:
    test = FunctionTest(
        "f",
        "def check(candidate):\n    for n in range(50): assert candidate(twice(n)) == f(2 * n) == 2 * n\n"
        "    try:\n        candidate(-1)\n    except ValueError as error:\n        assert 'minus' in str(error)\n"
        "    else:\n        raise AssertionError('no error')\n",
        "def twice(n): return 2 * n\ndef f(n):\n    '''The same.'''\n",
    )
    assert runner.check("def f(n):\n    if n < 0: raise ValueError('minus')\n    return n", test).passed
    assert not runner.check("def f(n): return n", test).passed


def test_no_error_of_a_program_ends_the_tests_loop(runner: LocalRunner, service: str) -> None:
    test = FunctionTest("f", "def check(candidate):\n    assert all(map(lambda n: candidate(n) == n, range(3)))\n")
    for one in (runner, make_runner(SandboxConfig(url=service))):
        assert one.check("def f(n): return n", test).passed
        assert not one.check("def f(n): raise StopIteration", test).passed


@pytest.mark.parametrize(
    "test", ["def check(", "1 / 0", "def test(f): pass", "def check(f):\n    assert f(object()) == 1"]
)
def test_tests_that_do_not_run_give_no_verdict(runner: LocalRunner, service: str, test: str) -> None:
    for one in (runner, make_runner(SandboxConfig(url=service))):
        with pytest.raises(GradingError, match="the tests do not run"):
            one.check("def f(x): return 1", FunctionTest("f", test))


def test_nothing_outlives_a_killed_parent(runner: LocalRunner) -> None:
    backend = runner.programs.backend
    source = f"""
from aha.grading.sandbox.library import Library, installed_files
from aha.grading.sandbox.local import Sandbox
sandbox = Sandbox(backends=[{backend!r}])
program = sandbox.open({{"mode": "script", "source": "import os; os.fork(); print(1, flush=True)\\nwhile True: pass"}})
while len(program._received["stdout"]) < 4: program._wait()
with open(f"/proc/self/fdinfo/{{sandbox._launched.first_process}}") as file: print(file.read(), flush=True)
program.finish()
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        (pid,) = (line.split()[1] for line in parent.stdout if line.startswith("Pid:"))
        parent.kill()
    limit = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < limit, "the sandbox outlived its parent"
        time.sleep(0.02)


class Shown(dict[str, int]):
    """A subclass, which travels as its base."""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.fractions()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    | st.sets(st.integers() | st.text()) | st.frozensets(st.integers()),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_values_travel(value: Any) -> None:
    arrived = decode(encode(value))
    assert arrived == value
    assert type(arrived) is type(value)


def test_subclasses_travel_as_their_base_and_the_rest_does_not() -> None:
    assert type(decode(encode(Shown(a=1)))) is dict
    assert decode(encode((Decimal("0.1"), Fraction(1, 3)))) == (Decimal("0.1"), Fraction(1, 3))
    endless: list[Any] = []
    endless.append(endless)
    for value in (object(), iter([]), len, range(3)):
        with pytest.raises(TypeError, match="not plain data"):
            encode(value)
    with pytest.raises(ValueError, match="deeper"):
        encode(endless)
    for text in ('{"evil": 1}', '{"tuple": 1}', "{}", '{"set": [[]]}'):
        with pytest.raises((TypeError, ValueError)):
            decode(text)


def test_outputs_are_compared_line_by_line() -> None:
    assert same_output("1 \n2\n\n", "1\n2")
    assert not same_output("1", "1\n2")
    assert not same_output("1\n2\n3", "1\n2")
    assert not same_output("", "1")


def refused(backend: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> str:
    """The message with which a sandbox with a changed view refuses to start."""
    view = dataclasses.replace(backends.host_view(), **changes)
    monkeypatch.setattr(backends, "host_view", lambda library: view)
    with Sandbox(backends=[backend]) as sandbox, pytest.raises(GradingError) as error:
        sandbox.start()
    return str(error.value)


def test_a_view_that_shows_the_trap_is_refused(runner: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = runner.programs.backend
    assert backend is not None
    shown = backends.host_view().shown
    message = refused(backend, monkeypatch, shown=(*shown, ("/etc/passwd", "/etc/passwd")))
    assert "a program in it could read /etc/passwd" in message
    assert "apt-get install bubblewrap" in message


def test_an_environment_that_tells_something_is_refused(runner: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = runner.programs.backend
    assert backend is not None
    environment = {**backends.host_view().environment, "SECRET_KEY": "x"}
    assert "read the environment" in refused(backend, monkeypatch, environment=environment)


def test_a_server_outside_a_sandbox_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unconfined(view: backends.View, info: int) -> list[str]:
        tell = (
            f"import json, os; os.write({info}, json.dumps({{'child-pid': os.getpid()}}).encode()); os.close({info});"
        )
        source = f"import sys; sys.path.insert(0, {str(Path(backends.__file__).parents[3])!r});" + tell
        return [sys.executable, "-c", source + "from aha.grading.sandbox.inside.server import main; main()"]

    monkeypatch.setitem(backends.BACKENDS, "unconfined", unconfined)
    with Sandbox(backends=["unconfined"]) as sandbox, pytest.raises(GradingError, match="first process of a sandbox"):
        sandbox.start()


def test_without_isolation_nothing_runs_and_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(view: backends.View, info: int) -> list[str]:
        raise GradingError("unshare: Operation not permitted")

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(backends.BACKENDS, "namespaces", broken)
    with pytest.raises(GradingError) as error:
        make_runner()
    for part in ("bubblewrap: not found on PATH", "Operation not permitted", "install bubblewrap", "remote sandbox"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"stdout": ""},
        {"stdout": "{}"},
        {"exit_code": 1},
        {"ending": Ending.TIME},
        {"reached": {"connect to TCP": True}},
        {"reached": {}},
        {"word": "guess"},
        {"users": [0] * 6},
        {"names": ["SECRET"]},
    ],
)
def test_the_judge_accepts_a_complete_and_clean_report_only(change: dict[str, Any]) -> None:
    with proof.Trap() as trap:
        challenge = trap.challenge()
        names = [f"read {path}" for path in challenge["read"]] + [f"write to {path}" for path in challenge["write"]]
        names += ["connect to TCP", "connect to an abstract socket", "open a socket to the machine around"]
        names += ["become root", "change the root folder"]
        report = {"word": challenge["word"], "reached": dict.fromkeys(names, False), "users": [65534] * 6}
        report |= {"groups": [], "names": ["HOME"]}
        good = Outcome(Ending.EXITED, 0, json.dumps(report), "")
        trap.judge(good)
        outer = {key: value for key, value in change.items() if key in ("stdout", "exit_code", "ending")}
        inner = {key: value for key, value in change.items() if key not in outer}
        if inner.get("reached"):
            inner["reached"] = report["reached"] | inner["reached"]
        bad = dataclasses.replace(good, stdout=json.dumps(report | inner))
        with pytest.raises(GradingError):
            trap.judge(dataclasses.replace(bad, **outer))


@pytest.fixture
def service(runner: LocalRunner) -> Iterator[str]:
    """A remote sandbox: `/run_code` in front of the local one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            outcome = runner.run(order["code"], order["stdin"])
            status = "Finished" if outcome.ending is Ending.EXITED else "TimeLimitExceeded"
            result = {"status": status, "return_code": outcome.exit_code, "stdout": outcome.stdout, "stderr": ""}
            body = json.dumps({"status": "Success", "run_result": result}).encode()
            broken = {"/broken/run_code": b"<html>", "/failing/run_code": b'{"run_result": {"status": "Error"}}'}
            self.send_response(302 if self.path.startswith("/moved") else 200)
            self.send_header("Location", "/run_code")
            self.end_headers()
            self.wfile.write(broken.get(self.path, body))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_remote_sandbox_runs_and_tests(service: str) -> None:
    remote = make_runner(SandboxConfig(url=service))
    assert remote.run("print(input())", "hello").stdout == "hello\n"
    assert remote.check(RIGHT, TEST).passed
    assert not remote.check(RIGHT.replace("*", "+"), TEST).passed
    assert not remote.check("print('{\"passed\": true}')\ndef f(a, by): return 1", TEST).passed
    assert not remote.check("def f(", TEST).passed
    assert not remote.check("import os\ndef f(a, by): os._exit(0)", TEST).passed


def test_a_remote_sandbox_that_fails_gives_no_verdict(service: str) -> None:
    for url in (f"{service}/broken", f"{service}/failing", f"{service}/moved", "http://127.0.0.1:9"):
        with pytest.raises(GradingError, match="gave no result"):
            RemoteSandbox(SandboxConfig(url=url)).run("pass")
    for url in ("file:///etc/passwd", "ftp://x", "sandbox", "http://"):
        with pytest.raises(ConfigError, match="must be an http"):
            make_runner(SandboxConfig(url=url))


def test_an_installed_function_is_called_where_it_can_do_no_harm(tmp_path: Path) -> None:
    library = Library(("PyYAML",), (), "yaml:unsafe_load", ("a: 1",))  # runs what a text says
    with Sandbox(SandboxConfig(seconds=2.0), library=library) as sandbox:
        try:
            sandbox.start()
        except GradingError as error:
            pytest.skip(str(error))
        assert sandbox.call("b: [1, two]") == {"b": [1, "two"]}
        seen = sandbox.call("!!python/object/apply:os.listdir [/library]")
        assert "yaml" in seen and all("yaml" in name.lower() for name in seen)
        canary = tmp_path / "canary"
        for attack, said in {
            f"!!python/object/apply:builtins.open [{canary}, w]": "FileNotFoundError",
            "!!python/object/apply:builtins.open [/library/yaml/x, w]": "Read-only",
            "!!python/object/apply:time.sleep [60]": "time limit",
            "!!python/object/apply:os._exit [0]": "ended",
            "!!python/object/apply:socket.socket []": "PermissionError",
            "{": "ParserError",
        }.items():
            with pytest.raises(GradingError, match=said):
                sandbox.call(attack)
        assert not canary.exists()
        assert sandbox.call("c") == "c"
        assert sandbox.starts == 1
        assert "ModuleNotFoundError" in sandbox.run("import aha.models").stderr


def test_requirements_come_with_a_distribution() -> None:
    files = installed_files(["jinja2", "no-such-distribution"])
    assert {"/library/jinja2", "/library/markupsafe"} <= set(files.values())
    assert all(Path(path).exists() for path in files)
    assert not any("torch" in path for path in files.values())
