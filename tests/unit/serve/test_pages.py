"""The pages' files: served by exact name, closed by the key like everything else, and free of addresses elsewhere."""

from __future__ import annotations

import base64
import re
from importlib.resources import files

import pytest
from starlette.testclient import TestClient

from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel

KEY = "correct:horse-battery"
FILES = sorted(file.name for file in files("aha.serve").joinpath("web").iterdir())
PATHS = ["/", "/run", *(f"/web/{name}" for name in FILES if not name.endswith(".html"))]


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("path", PATHS)
def test_files_are_served_with_the_policy(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg"}
    suffix = path.rpartition(".")[2] if "." in path else "html"
    assert answer.headers["content-type"].startswith(kind[suffix])
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy


def test_pages_name_no_other_server_and_hold_no_script() -> None:
    for name in FILES:
        text = files("aha.serve").joinpath("web", name).read_text()
        addresses = set(re.findall(r"https?://[\w.]+", text))
        assert addresses <= {"http://www.w3.org"}, name  # names of the XML languages, which nobody fetches
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function", text), name
        if name.endswith(".html"):
            assert re.findall(r"<script[^>]*>", text) == [f'<script type="module" src="/web/{name[:-5]}.js">']
            assert " style=" not in text and not re.search(r"\son\w+=", text)


@pytest.mark.parametrize("path", ["/web/", "/web/chat.html", "/web/../app.py", "/web/%2e%2e/app.py", "/chat.html"])
def test_no_other_file_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_with_a_key_the_pages_need_it_and_a_browser_sends_it_as_a_password(models: list[ServedModel]) -> None:
    with TestClient(create_app(models, ServeConfig(), KEY), base_url="http://aha.example") as http:
        for path in (*PATHS, "/api/page", "/api/runs"):
            refused = http.get(path)
            assert refused.status_code == 401 and "Basic realm" in refused.headers["www-authenticate"]
            assert http.get(path, headers=basic("anyone", KEY)).status_code == 200
            assert http.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        wrong = [basic("u", "wrong"), basic(KEY, ""), basic("u", KEY + "x"), basic("u", "correct")]
        wrong += [{"authorization": f"Basic {value}"} for value in (KEY, "", "!!", "dTp4*", "=" * 9)]
        for headers in wrong:
            assert http.get("/", headers=headers).status_code == 401, headers


def test_a_remembered_key_does_not_serve_other_origins(models: list[ServedModel]) -> None:
    with TestClient(create_app(models, ServeConfig(), KEY), base_url="http://aha.example") as http:
        for origin, status in (
            ("http://aha.example", 200), ("https://aha.example", 200), ("http://evil.example", 403), ("null", 403),
            ("http://aha.example.evil", 403), ("http://aha.example:81", 403),
        ):  # fmt: skip
            answer = http.get("/v1/models", headers={**basic("", KEY), "origin": origin})
            assert answer.status_code == status, origin
        bearer = {"authorization": f"Bearer {KEY}", "origin": "http://evil.example"}
        assert http.get("/v1/models", headers=bearer).status_code == 200  # a program that knows the key, not a browser


def test_the_page_is_told_which_words_it_marks_in_thinkings(client: TestClient) -> None:
    reflection = client.get("/api/page").json()["reflection"]
    assert {kind: set(words) for kind, words in reflection.items()} == {
        "wait": {"wait", "等等"},
        "no": {"no", "不对"},
        "differ": {"differ", "不同"},
    }
