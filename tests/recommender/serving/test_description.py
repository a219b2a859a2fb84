"""The description of the interface (OpenAPI) holds for what schemathesis makes of it."""

from functools import partial

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.serving import writer
from msgm.recommender.serving.app import create
from msgm.recommender.serving.settings import Settings
from tests.forks import Forked

CONFIG = ["data={name: synthetic, users: 60, items: 30, interactions: 700, least: 5}", "models={ease: {}}"]
TOKEN = "a-token-of-the-tests"
SENT = {"Authorization": f"Bearer {TOKEN}"}
ROUTES = (
    "GET /health",
    "POST /recommend",
    "POST /whatif",
    "POST /forget",
    "GET /requests/{number}",
    "GET /metrics",
)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    place = tmp_path_factory.mktemp("described")
    folder, address = fit(load_config(None, CONFIG), "ease", place / "shop"), str(place / "writer")
    writing = Forked(partial(writer.run, folder, address, False))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(place))
            yield create(Settings(folder, False, address, TOKEN))
        writer.stop(address)
        assert writing.ended() == 0
    finally:
        writing.process.kill()


@pytest.mark.parametrize(
    ("route", "mode"),
    [(route, GenerationMode.POSITIVE) for route in ROUTES]
    + [(route, GenerationMode.NEGATIVE) for route in ROUTES if "POST" in route or "{" in route],
)
def test_every_answer_is_as_described(app, route, mode):
    description = schemathesis.openapi.from_asgi("/openapi.json", app, headers=SENT)
    method, path = route.split()

    @given(case=description[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case):
        case.call_and_validate(headers=SENT)

    check()


def test_every_route_is_described(app):
    paths = app.openapi()["paths"]
    assert {f"{method.upper()} {path}" for path in paths for method in paths[path]} == set(ROUTES)
