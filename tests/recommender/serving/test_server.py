"""The running server: answers, refusals, metrics and a clean end."""

import signal
import socket
import subprocess
import sys
import tempfile

import httpx
import pytest

from msgm.errors import UserError
from msgm.recommender.config import load_config
from msgm.recommender.service import fit
from msgm.recommender.serving.server import _listening, serve

CONFIG = ["data={name: synthetic, users: 60, items: 30, interactions: 700, least: 5}", "models={ease: {}}"]
TOKEN = "a-token-of-the-tests"


def started(folder, *options, readers=1):
    command = [
        sys.executable,
        "-m",
        "msgm",
        "recommender",
        "serve",
        folder,
        "--port",
        0,
        "--readers",
        readers,
        *options,
    ]
    process = subprocess.Popen([str(one) for one in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert " at http" in line, process.stderr.read()
    client = httpx.Client(base_url=line.split(" at ")[1].split(";")[0], timeout=60)
    client.get("/health")
    return process, client


def ended(process, sign=signal.SIGTERM):
    process.send_signal(sign)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fit(load_config(None, CONFIG), "ease", tmp_path_factory.mktemp("served") / "shop")


@pytest.fixture(scope="module")
def client(folder):
    process, client = started(folder)
    yield client
    assert ended(process) == (0, "")


def test_a_forgotten_user_is_served_nothing_and_the_request_is_done(client):
    assert len(client.post("/recommend", json={"user": "user2", "k": 4}).json()["items"]) == 4
    number = client.post("/forget", json={"users": ["user2"]}).json()["requests"]
    assert client.post("/forget", json={"users": ["user2"]}).json() == {"requests": [], "before": number}
    assert client.post("/recommend", json={"user": "user2"}).status_code == 409
    assert client.get(f"/requests/{number[0]}").json()["state"] == "done"


def test_what_if_has_both_lists(client):
    found = client.post("/whatif", json={"user": "user1", "items": None, "k": 3}).json()
    assert (len(found["before"]), found["after"]) == (3, [])


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/recommend", b"", 422),
        ("/recommend", b"{", 422),
        ("/recommend", b'{"user": "\\ud800"}', 422),
        ("/recommend", b'{"user": "user1", "k": 1e400}', 422),
        ("/recommend", b'{"user": "user1", "k": NaN}', 422),
        ("/recommend", b'{"user": "user1", "k": 0}', 422),
        ("/recommend", b'{"user": "user1", "k": ' + b"9" * 5000 + b"}", 400),
        ("/recommend", b'{"user": "nobody"}', 409),
        ("/forget", b"{}", 422),
        ("/forget", b'{"users": []}', 422),
        ("/forget", b'{"items": ["user1"]}', 409),
        ("/forget", b'{"users": ["user4"], "items": ["item4"]}', 422),
        ("/forget", b'{"interactions": [["user4"]]}', 422),
        ("/whatif", b'{"user": "user1", "items": ["nothing"]}', 409),
    ],
)
def test_bad_input_is_refused_in_a_sentence(client, path, body, code):
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == code
    assert isinstance(answer.json()["detail"], str)


def test_unknown_requests_and_hosts_are_refused(client):
    assert client.get("/requests/999").status_code == 404
    assert client.get("/requests/1e9").status_code == 422
    assert client.get("/health", headers={"Host": "elsewhere.example"}).status_code == 400


def test_metrics_count_answers_by_route(client):
    client.post("/recommend", json={"user": "user1"})
    assert 'msgm_http_seconds_count{route="/recommend",status="200"}' in client.get("/metrics").text


def test_what_a_connection_is_sent_does_not_wait_for_more():
    with (
        _listening("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_long_path_of_temporary_files_is_refused(folder, tmp_path, monkeypatch):
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(UserError, match="TMPDIR: .* is too long a path"):
        serve(folder, "127.0.0.1", 0, 1, None)
    assert list(long.iterdir()) == []
