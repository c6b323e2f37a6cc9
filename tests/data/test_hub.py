"""--dataset NAME through the real `datasets` and `huggingface_hub`, from a hub on this machine.

A small server speaks as much of the hub's interface as they ask for, and misbehaves on request.
MINISUM_HUB=1 also runs the cases that wait for time-outs.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("datasets")

ROOT = Path(__file__).parents[2]
NAME = "fancyzhx/ag_news"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FLAGS = ["--dataset", "ag_news", "--width", "8", "--heads", "2", "--max-len", "8", "--epochs", "1",
         "--threads", "1"]  # fmt: skip
slow = pytest.mark.skipif(not os.environ.get("MINISUM_HUB"), reason="MINISUM_HUB=1 runs it")


def table(rows, columns=("text", "label")):
    """A parquet file of so many rows."""
    stream = io.BytesIO()
    values = [[f"word{i} {'abcd'[i % 4]}" for i in range(rows)], [i % 4 for i in range(rows)]]
    parquet.write_table(pyarrow.table(dict(zip(columns, values, strict=True))), stream)
    return stream.getvalue()


def repository(**changes):
    """path -> content of the data set's repository."""
    return {
        "README.md": b"---\nlicense: mit\n---\n# News\n",
        "data/train-00000-of-00001.parquet": table(80),
        "data/test-00000-of-00001.parquet": table(24),
    } | changes


class Hub(ThreadingHTTPServer):
    """`files` under NAME; 404 for all else. seen: the requests."""

    daemon_threads = True

    def __init__(self, files):
        self.files, self.seen = files, []
        self.dies_after = None  # bytes of a parquet file, after which the connection breaks
        self.deaths = 0  # how often it does
        self.delay = 0.0  # seconds before every answer
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        self.server.seen.append(f"{self.command} {self.path}")

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.delay)
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/datasets/{NAME}"):
            self.describe(path.removeprefix(f"/api/datasets/{NAME}"))
        elif path.startswith(f"/datasets/{NAME}/resolve/"):
            self.give("/".join(path.split("/")[5:]).partition("/")[2])
        else:
            self.send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_POST = do_GET

    def describe(self, rest):
        files = self.server.files
        if rest.startswith("/tree/"):
            folder = "/".join(rest.split("/")[3:])
            return self.send_json(list(self.entries(f"{folder}/" if folder else "")))
        names = [{"rfilename": path} for path in files]
        return self.send_json({"id": NAME, "sha": COMMIT, "private": False, "siblings": names})

    def entries(self, folder):
        """What stands directly in `folder`."""
        inside = [p.removeprefix(folder) for p in self.server.files if p.startswith(folder)]
        for name in sorted({path.partition("/")[0] for path in inside}):
            content = self.server.files.get(folder + name)
            mark = hashlib.sha1((folder + name).encode()).hexdigest()
            entry = {"path": folder + name, "oid": mark}
            size = 0 if content is None else len(content)
            yield entry | {"type": "directory" if content is None else "file", "size": size}

    def give(self, path):
        content = self.server.files.get(path)
        if content is None:
            return self.send(404, b"no such file", {"X-Error-Code": "EntryNotFound"})
        tag = hashlib.sha1(content).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if path.endswith(".parquet") and self.command == "GET" and self.server.deaths:
            self.server.deaths -= 1
            self.send(200, content, headers, until=self.server.dies_after)
            self.close_connection = True
            return self.connection.close()
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and self.command == "GET":
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.send(206, content[start:], headers)
        return self.send(200, content, headers)

    def send_json(self, content):
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, status, content, headers, until=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:until])
            self.wfile.flush()


@contextlib.contextmanager
def serving(**changes):
    hub = Hub(repository(**changes))
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


def run(folder, address, home, flags=FLAGS, task="classifier", **more):
    """(status, standard error, seconds) of a run in a child with the cache `home`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**inherited, "HF_ENDPOINT": address, "HF_HOME": str(home), **more}
    environment.pop("MINISUM_DATA", None)
    shutil.rmtree(folder / "run", ignore_errors=True)
    began = time.monotonic()
    child = subprocess.run(
        [sys.executable, "-m", f"train.{task}", *flags, "--out", str(folder / "run")],
        cwd=ROOT, capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip
    assert "Traceback" not in child.stderr, child.stderr
    assert (child.returncode == 0) == (folder / "run" / "result.json").exists()
    return child.returncode, child.stderr, time.monotonic() - began


def sentence(errors):
    """The one sentence that a refused run ends with."""
    found = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(found) == 1 and errors.rstrip().endswith(found[0]), errors
    return found[0]


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """(HF_HOME after a run that fetched the set, the address of the hub, which is gone now)."""
    folder = tmp_path_factory.mktemp("warm")
    with serving() as hub:
        status, errors, _ = run(folder, hub.address, folder / "home")
        assert status == 0, errors
        assert "note: looking for fancyzhx/ag_news on the hub" in errors.splitlines()[0]
        fetched = [line for line in hub.seen if line.startswith("GET") and "parquet" in line]
        assert len(fetched) == 2, hub.seen
    result = json.loads((folder / "run" / "result.json").read_text())
    assert (result["dataset"], result["test_examples"], result["classes"]) == ("ag_news", 24, 4)
    return folder / "home", hub.address


@pytest.mark.parametrize(
    "said", [{}, pytest.param({"HF_HUB_OFFLINE": "1"}, marks=slow)], ids=["gone", "offline"]
)
def test_what_was_fetched_once_needs_no_hub(warm, tmp_path, said):
    home, address = warm
    status, errors, seconds = run(tmp_path, address, home, **said)
    assert status == 0, errors
    assert seconds < 20 and errors.startswith("note: "), (seconds, errors)
    assert ("does not answer" in errors) == (not said)


@pytest.mark.parametrize(
    "said", [{}, pytest.param({"HF_HUB_OFFLINE": "1"}, marks=slow)], ids=["gone", "offline"]
)
def test_no_hub_and_nothing_fetched(warm, tmp_path, said):
    """An explanation first, the end in seconds."""
    status, errors, seconds = run(tmp_path, warm[1], tmp_path / "home", **said)
    assert status == 2 and seconds < 12, (seconds, errors)
    assert errors.startswith("note: ")
    assert "ag_news is not on this machine" in sentence(errors)


def test_unknown_set_and_wrong_columns(tmp_path):
    flags = [*FLAGS[2:], "--dataset", "imdb"]
    with serving() as hub:
        status, errors, seconds = run(tmp_path, hub.address, tmp_path / "home", flags)
    assert status == 2 and seconds < 20, errors
    assert "stanfordnlp/imdb could not be loaded from the hub" in sentence(errors)
    train = {"data/train-00000-of-00001.parquet": table(80, ("story", "label"))}
    test = {"data/test-00000-of-00001.parquet": table(20, ("story", "label"))}
    with serving(**train, **test) as hub:
        status, errors, _ = run(tmp_path, hub.address, tmp_path / "home")
    assert status == 2
    assert "ag_news (train) has no column 'text'; it has 'story', 'label'" in sentence(errors)


@slow
def test_any_set_by_its_address(tmp_path):
    """Its own splits; numbers of named classes have the names."""
    info = (
        "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n"
        "    dtype:\n      class_label:\n        names:\n"
        + "".join(f"          '{i}': {name}\n" for i, name in enumerate("abcd"))
        + "---\n"
    )
    flags = [*FLAGS[2:], "--dataset", NAME]
    with serving(**{"README.md": info.encode()}) as hub:
        status, errors, _ = run(tmp_path, hub.address, tmp_path / "home", flags)
    assert status == 0, errors
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["test_examples"], result["class_names"]) == (24, ["a", "b", "c", "d"])
    flags[-1] = "nobody/nothing"
    with serving() as hub:
        status, errors, _ = run(tmp_path, hub.address, tmp_path / "home", flags)
    assert status == 2 and "nobody/nothing could not be loaded from the hub" in sentence(errors)


def test_a_connection_that_breaks_once(tmp_path):
    with serving() as hub:
        hub.dies_after, hub.deaths = 700, 1
        status, errors, _ = run(tmp_path, hub.address, tmp_path / "home")
    assert hub.deaths == 0
    if status:  # older versions of the library give up; what they left must do no harm
        assert "could not be loaded" in sentence(errors)
        with serving() as hub:
            status, errors, _ = run(tmp_path, hub.address, tmp_path / "home")
    assert status == 0, errors


@slow
@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_damaged_cache(warm, tmp_path, damage):
    home = tmp_path / "home"
    shutil.copytree(warm[0], home, symlinks=True)
    tables = list(home.rglob("*.arrow"))
    assert tables
    for path in tables:
        content = path.read_bytes()
        half = len(content) // 2
        path.write_bytes(content[:half] + (b"" if damage == "cut" else b"\xff" * half))
    status, errors, _ = run(tmp_path, warm[1], home, HF_HUB_OFFLINE="1")
    assert status == 2 and "could not be loaded" in sentence(errors)


@slow
def test_a_hub_that_is_slow(tmp_path):
    """Half a second before every answer is no reason to fail."""
    with serving() as hub:
        hub.delay = 0.5
        status, errors, _ = run(tmp_path, hub.address, tmp_path / "home")
    assert status == 0, errors


@slow
def test_a_hub_that_is_slower_than_the_time_out(tmp_path):
    """Retried with a note, then refused."""
    patience = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}
    with serving() as hub:
        hub.delay = 3.0
        status, errors, seconds = run(tmp_path, hub.address, tmp_path / "home", **patience)
    assert status == 2 and seconds < 120, (seconds, errors)
    assert "timed out" in errors and errors.count("\n") > 2, errors  # a note before the last
    assert "could not be loaded" in sentence(errors)


@slow
def test_a_hub_that_accepts_and_never_answers(tmp_path):
    with serving() as hub:
        hub.delay = 60.0
        status, errors, seconds = run(tmp_path, hub.address, tmp_path / "home")
    assert status == 2 and seconds < 20, (seconds, errors)
    assert "does not answer" in errors and "could not be loaded" in sentence(errors)


@slow
def test_a_connection_that_always_breaks(tmp_path):
    with serving() as hub:
        hub.dies_after, hub.deaths = 700, 1000
        status, errors, seconds = run(tmp_path, hub.address, tmp_path / "home")
    assert status == 2 and seconds < 120, (seconds, errors)
    assert "could not be loaded" in sentence(errors)
    with serving() as hub:
        assert run(tmp_path, hub.address, tmp_path / "home")[0] == 0


@slow
@pytest.mark.parametrize("task", ["causal", "classifier"])
def test_other_commands(warm, tmp_path, task):
    flags = ["--dataset", "ag_news", "--width", "8", "--epochs", "1", "--vocab-size", "300"]
    flags += ["--heads", "2", "--max-len", "8"]
    status, errors, _ = run(tmp_path, warm[1], warm[0], flags, task)
    assert status == 0, errors
