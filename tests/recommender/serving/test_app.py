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

CONFIG = ["data={name: synthetic, users: 60, items: 30, interactions: 700, least: 5}", "models={ease: {}}"]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = fit(load_config(None, CONFIG), "ease", tmp_path_factory.mktemp("interface") / "shop")
    return create(Settings(folder, False, str(folder / "no-writer"), None))


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
