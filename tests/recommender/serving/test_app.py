"""The interface in this process: what is no route, and what fails, is answered as every other error is."""

import asyncio
from unittest.mock import patch

import httpx
import pytest

from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.serving.app import create
from msgm.recommender.serving.reader import Reader
from msgm.recommender.serving.settings import Settings

TOKEN = "a-token-of-the-tests"
ROUTES = (
    ("POST", "/recommend", {"user": "user1"}),
    ("POST", "/whatif", {"user": "user1", "items": None}),
    ("POST", "/forget", {"users": ["user1"]}),
    ("GET", "/requests/1", None),
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
    ("GET", "/nothing", None),
)
CONFIG = ["data={name: synthetic, users: 60, items: 30, interactions: 700, least: 5}", "models={ease: {}}"]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = fit(load_config(None, CONFIG), "ease", tmp_path_factory.mktemp("interface") / "shop")
    return create(Settings(folder, False, str(folder / "no-writer"), None))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = fit(load_config(None, CONFIG), "ease", tmp_path_factory.mktemp("guarded") / "shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder.parent))
        yield create(Settings(folder, False, str(folder / "no-writer"), TOKEN))


def answered(app, method, path, **given):
    async def sent():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **given)

    return asyncio.run(sent())


@pytest.mark.parametrize("path", ["/", "/nothing", "/recommend/", "/requests/", "/docs"])
def test_what_is_no_route_is_told_so_in_a_sentence(app, path):
    answer = answered(app, "GET", path)
    assert answer.status_code == 404
    assert answer.json() == {"detail": "there is no such route; GET /openapi.json describes all routes."}


@pytest.mark.parametrize(("method", "path", "takes"), [("GET", "/recommend", "POST"), ("DELETE", "/health", "GET")])
def test_the_wrong_method_is_told_which_one_the_route_takes(app, method, path, takes):
    answer = answered(app, method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, takes)
    assert answer.json() == {"detail": f"this route takes {takes}; GET /openapi.json describes all routes."}


def test_an_unknown_request_is_told_from_an_unknown_route(app):
    answer = answered(app, "GET", "/requests/7")
    assert (answer.status_code, answer.json()) == (404, {"detail": "the journal knows no request 7."})


def test_a_fault_of_the_server_is_told_in_a_sentence_without_what_was_asked(app):
    with patch.object(Reader, "recommend", side_effect=ZeroDivisionError("user1")):
        answer = answered(app, "POST", "/recommend", json={"user": "user1"})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (500, "no-store")
    assert answer.json() == {"detail": "the server failed on this; its standard error says where."}


def test_a_writer_that_is_not_there_is_503_and_asked_to_be_tried_again(app):
    answer = answered(app, "POST", "/forget", json={"users": ["user1"]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "ask again" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.parametrize("given", [None, "Bearer another-token", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
def test_nothing_but_health_answers_without_the_token(guarded, method, path, body, given):
    headers = {} if given is None else {"Authorization": given}
    answer = answered(guarded, method, path, json=body, headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json() == {"detail": "send the token of this server as Authorization: Bearer TOKEN."}


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_whoever_has_the_token_is_answered_under_any_name_of_the_host(guarded, method, path, body):
    headers = {"Authorization": f"bearer  {TOKEN}", "Host": "shop.example"}
    assert answered(guarded, method, path, json=body, headers=headers).status_code != 401


def test_health_tells_anyone_that_the_process_answers(guarded):
    answer = answered(guarded, "GET", "/health", headers={"Host": "shop.example"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(("method", "path", "body"), [*ROUTES, ("GET", "/health", None)])
def test_no_answer_may_be_kept_by_a_cache(app, guarded, method, path, body):
    for one in (app, guarded):
        assert answered(one, method, path, json=body).headers["Cache-Control"] == "no-store"
