"""The running server: answers, refusals, metrics and a clean end."""

import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import httpx
import psutil
import pytest

from msgm.cli import parser
from msgm.errors import UserError
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.service import Service
from msgm.recommender.serving.server import _listening, serve
from tests.forks import PATIENCE

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


def ended(process):
    """Return the exit code, and all that was written but the first line: no id stands there, as there is no log."""
    process.terminate()
    said, errors = process.communicate(timeout=60)
    return process.returncode, said + errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fit(load_config(None, CONFIG), "ease", tmp_path_factory.mktemp("served") / "shop")


@pytest.fixture(scope="module")
def client(folder):
    process, client = started(folder)
    yield client
    assert ended(process) == (0, "")


@pytest.mark.parametrize(
    ("module", "heavy"), [("server", "fastapi prometheus_client"), ("writer", "fastapi uvicorn"), ("app", "uvicorn")]
)
def test_a_process_imports_no_more_than_it_needs(module, heavy):
    code = f"import msgm.recommender.serving.{module}, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {*heavy.split(), "torch", "scipy.stats", "sklearn", "matplotlib"} & set(found.stdout.split())


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


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/forget", {"interactions": [["user1"]]}, "body.interactions.0: List should have at least 2 items"),
        ("/forget", {"users": "user1"}, "body.users: Input should be a valid list."),
        ("/forget", {"users": ["user1"], "items": ["item1"]}, "body: send one of users, items and interactions."),
        ("/forget", {"together": True}, "body: send one of users, items and interactions."),
        ("/forget", ["users"], "body: send one of users, items and interactions."),
        ("/forget", {"users": ["user1"], "together": "yes"}, "body.together: Input should be a valid boolean."),
        ("/forget", {"users": ["user1"], "together": 1}, "body.together: Input should be a valid boolean."),
        ("/recommend", {"k": 3}, "body.user: Field required."),
    ],
)
def test_a_wrong_body_is_named_by_what_was_sent(client, path, body, sentence):
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(sentence)


@pytest.mark.parametrize("path", ["/recommend", "/forget"])
@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}])
def test_a_body_that_is_not_said_to_be_json_is_told_so(client, path, headers):
    answer = client.post(path, content=b'{"user": "user1"}', headers=headers)
    assert answer.status_code == 422
    assert answer.json() == {"detail": "body: send JSON, with Content-Type: application/json."}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_this_machine_has_several_names(client, host):
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["elsewhere.example", "localhost.example", "127.0.0.1.example:80", ""])
def test_another_host_is_told_in_a_sentence(client, host):
    answer = client.get("/health", headers={"Host": host})
    assert (answer.status_code, answer.json()) == (400, {"detail": "the header Host names another host than this one."})


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


def test_a_folder_that_is_gone_is_503_on_every_route_and_is_not_made_anew(tmp_path):
    gone = fit(load_config(None, CONFIG), "ease", tmp_path / "gone")
    process, client = started(gone)
    try:
        assert client.post("/recommend", json={"user": "user1"}).status_code == 200
        gone.rename(tmp_path / "elsewhere")
        for answer in asked(client):
            assert (answer.status_code, str(gone) in answer.json()["detail"]) == (503, True)
        for one in psutil.Process(process.pid).children():  # others take their places, without the folder
            one.kill()
        answers = until(lambda: asked(client), lambda found: all(str(gone) in each.json()["detail"] for each in found))
        assert [answer.status_code for answer in answers] == [503] * 4
        assert not gone.exists()
        (tmp_path / "elsewhere").rename(gone)
        assert client.post("/recommend", json={"user": "user1"}).status_code == 200
        assert client.post("/forget", json={"users": ["user2"]}).json() == {"requests": [1], "before": []}
        code, errors = ended(process)
        assert (code, "Traceback" in errors) == (0, False)
        assert f"{gone} holds no recommender; make one with msgm recommender fit.\n" in errors
    finally:
        process.kill()


def asked(client):
    return [
        client.post("/recommend", json={"user": "user1"}),
        client.post("/whatif", json={"user": "user1", "items": None}),
        client.post("/forget", json={"users": ["user2"]}),
        client.get("/requests/1"),
    ]


def until(ask, fits):
    """Return the first answers that fit; a process that was killed takes its connections with it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            if fits(found := ask()):
                return found
        time.sleep(0.1)
    raise TimeoutError


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "shop.example", "localhost.example"])
def test_without_a_token_others_cannot_reach_it(folder, host):
    with pytest.raises(UserError, match="can be reached by others; give a --token-file"):
        serve(folder, host, 99999, 1, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_loopback_needs_no_token(folder, host):
    with pytest.raises(UserError, match="--host and --port"):
        serve(folder, host, 99999, 1, None)


def test_by_itself_it_listens_at_loopback_alone(folder):
    assert parser().parse_args(["recommender", "serve", str(folder)]).host == "127.0.0.1"


def test_with_a_token_others_can_reach_it(folder, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with pytest.raises(UserError, match="--host and --port"):
        serve(folder, "0.0.0.0", 99999, 1, token)


def test_what_the_command_line_forgets_beside_it_is_not_served(client, folder):
    assert client.post("/recommend", json={"user": "user8"}).status_code == 200
    number = Service(folder).forget("users", ["user8"]).numbers
    assert client.post("/recommend", json={"user": "user8"}).status_code == 409
    assert client.post("/forget", json={"users": ["user8"]}).json() == {"requests": [], "before": number}


def test_a_token_that_others_can_read_is_refused(folder, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    for mode in (0o644, 0o640, 0o620):
        token.chmod(mode)
        with pytest.raises(UserError, match="can be read by others than its owner; chmod 600"):
            serve(folder, "127.0.0.1", 0, 1, token)
    token.chmod(0o600)
    with pytest.raises(UserError, match="--host and --port"):
        serve(folder, "127.0.0.1", 99999, 1, token)


def test_a_long_path_of_temporary_files_is_refused(folder, tmp_path, monkeypatch):
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(UserError, match="TMPDIR: .* is too long a path"):
        serve(folder, "127.0.0.1", 0, 1, None)
    assert list(long.iterdir()) == []
