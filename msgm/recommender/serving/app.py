"""The HTTP interface of a served folder. Ids stand in bodies alone, as addresses end up in logs."""

import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path as FilePath
from time import perf_counter
from typing import Annotated, Any, Literal

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msgm import __version__, threads
from msgm.errors import RunError, UserError
from msgm.folders import BusyError
from msgm.recommender.service import UnreadableError
from msgm.recommender.serving.reader import Reader
from msgm.recommender.serving.settings import Settings
from msgm.recommender.serving.writer import Asked, ask, end_with_parent

WAITING = 4
"""Deletions that one reader waits for at a time; further ones queue, so that they take no thread from the lists."""
LONGEST = 1000
"""Characters of an id, items of a list, and ids of a request at most."""
LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[?::1\]?)(:\d+)?", re.IGNORECASE)
"""Names of this machine in the header Host."""
JSON = re.compile(r"application/([^;]+\+)?json\s*(;|$)", re.IGNORECASE)
"""Content types of JSON."""
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 10.0 is an integer in JSON Schema


Id = Annotated[str, Field(min_length=1, max_length=LONGEST, description="an id, as text")]
Ids = Annotated[list[Id], Field(min_length=1, max_length=LONGEST)]
Pair = Annotated[list[Id], Field(min_length=2, max_length=2)]
Size = Annotated[int, Field(ge=1, le=LONGEST, strict=True, description="length of the list"), BeforeValidator(_whole)]
Together = Annotated[bool, Field(strict=True, description="whether all of it is one request")]
Number = Annotated[int, Path(ge=1, lt=2**53, description="number of the request")]


class Body(BaseModel):
    """A body without fields that nobody reads."""

    model_config = ConfigDict(extra="forbid")


class ListAsked(Body):
    """A user, and how many items to list."""

    user: Id
    k: Size = 10


class WhatIfAsked(ListAsked):
    """A user, and what to withdraw of their history; null is all of it."""

    items: Ids | None


class UsersAsked(Body):
    """Users to forget."""

    users: Ids
    together: Together = False


class ItemsAsked(Body):
    """Items to forget."""

    items: Ids
    together: Together = False


class InteractionsAsked(Body):
    """Interactions to forget, each a user and an item."""

    interactions: Annotated[list[Pair], Field(min_length=1, max_length=LONGEST)]
    together: Together = False


def _form(body: Any) -> str | None:
    """Return the form of a body that says what to forget, by the one field that says it; None where that is not so."""
    found = [name for name in FORMS if name in body] if isinstance(body, dict) else []
    return FORMS[found[0]] if len(found) == 1 else None


FORMS = {"users": "UsersAsked", "items": "ItemsAsked", "interactions": "InteractionsAsked"}
ForgetAsked = Annotated[
    Annotated[UsersAsked, Tag("UsersAsked")]
    | Annotated[ItemsAsked, Tag("ItemsAsked")]
    | Annotated[InteractionsAsked, Tag("InteractionsAsked")],
    Discriminator(_form, "one_of", "send one of users, items and interactions"),
]


class Listed(BaseModel):
    """Ids of items, best first."""

    items: list[str]


class Withdrawn(BaseModel):
    """A list as it is, and as it would be; see ``msgm.recommender.whatif.WhatIf``."""

    before: list[str]
    after: list[str]
    overlap: float
    exactness: str
    error: float
    seconds: float


class Forgotten(BaseModel):
    """Numbers of the requests that were answered now, and of those that had been answered before."""

    requests: list[int]
    before: list[int]


class Status(BaseModel):
    """What the journal says last of a request."""

    request: int
    kind: Literal["users", "items", "interactions"]
    size: int
    state: Literal["planned", "done", "refused"]
    time: str | None = None
    exactness: str | None = None
    seconds: float | None = None
    reason: str | None = None


class Health(BaseModel):
    """Says that this process answers."""

    status: Literal["ok"] = "ok"


class Refusal(BaseModel):
    """One sentence on what was wrong."""

    detail: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": Refusal, "description": text}
    for code, text in {
        400: "the body is no JSON, or the host is not this one",
        401: "the token is missing or wrong",
        404: "there is no such request, or no such route",
        405: "the route takes another method",
        409: "the folder cannot answer that, as for an unknown user",
        422: "the body is not of the right form",
        500: "a request was answered, but a file that is no part of the model still names what was forgotten; or the "
        "server failed, and its own output says where",
        503: "the folder cannot be read or written just now",
    }.items()
}


def create(settings: Settings) -> FastAPI:
    """Return the interface of a reading process, which ends with the process that started it."""
    end_with_parent()
    threads.choose(1)
    app = FastAPI(
        title="msgm recommender",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=REFUSALS,
    )
    _answer_errors(app, settings.folder)
    _watch(app, settings.token)

    @app.get("/health")
    def health() -> Health:
        return Health()

    app.include_router(_routes(Reader(settings.folder, settings.trust), settings))
    return app


def _routes(reader: Reader, settings: Settings) -> APIRouter:
    routes = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False))] if settings.token else [])
    limiter = CapacityLimiter(WAITING)

    @routes.post("/recommend")
    def recommend(asked: ListAsked) -> Listed:
        return Listed(items=reader.recommend(asked.user, asked.k))

    @routes.post("/whatif")
    def what_if(asked: WhatIfAsked) -> Withdrawn:
        return Withdrawn(**vars(reader.what_if(asked.user, asked.items, asked.k)))

    @routes.post("/forget")
    async def forget(asked: ForgetAsked) -> Forgotten:
        kind, ids = next((name, value) for name, value in asked if name != "together")
        outcome = await run_sync(ask, settings.writer, Asked(kind, ids, asked.together), limiter=limiter)
        if outcome.refused:
            raise UserError("; ".join(f"request {number}: {why}" for number, why in outcome.refused.items()))
        return Forgotten(requests=outcome.numbers, before=outcome.before)

    @routes.get("/requests/{number}", response_model_exclude_none=True)
    def status(number: Number) -> Status:
        found = reader.status(number)
        if found is None:
            raise HTTPException(404, f"the journal knows no request {number}.")
        return Status(**found)

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _answer_errors(app: FastAPI, folder: FilePath) -> None:
    """Answer each error with one sentence. What was sent is not repeated: it may be no text that can be sent."""

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()[0]
        if found["loc"][0] == "body" and not JSON.match(request.headers.get("content-type", "")):
            return _refusal(422, "body: send JSON, with Content-Type: application/json.")
        place = ".".join(str(part) for part in found["loc"] if part not in FORMS.values())
        return _refusal(422, f"{place}: {found['msg']}.")

    @app.exception_handler(StarletteError)
    def unrouted(_: Request, error: StarletteError) -> Response:
        headers = dict(error.headers or {})
        if error.detail != HTTPStatus(error.status_code).phrase:
            return _refusal(error.status_code, error.detail)
        told = f"this route takes {headers['Allow']}" if "Allow" in headers else "there is no such route"
        return _refusal(error.status_code, f"{told}; GET /openapi.json describes all routes.", headers)

    @app.exception_handler(UserError)
    def refused(_: Request, error: UserError) -> Response:
        return _refusal(503 if isinstance(error, BusyError | UnreadableError) else 409, str(error))

    @app.exception_handler(RunError)
    def failed(_: Request, error: RunError) -> Response:
        return _refusal(500 if "the requests are answered" in str(error) else 503, str(error))

    @app.exception_handler(OSError)
    def unreadable(_: Request, error: OSError) -> Response:
        return _refusal(503, f"{folder} cannot be read ({error.strerror}).")


def _watch(app: FastAPI, token: str | None) -> None:
    """Refuse callers without the token, and measure every answer."""
    seconds = Histogram(
        "msgm_http_seconds",
        "Seconds until an answer, by route and status.",
        ("route", "status"),
        buckets=BUCKETS,
        registry=CollectorRegistry(),
    )

    app.add_middleware(_Watch, token=token, seconds=seconds)


class _Watch:
    """Stands before the routes. It is ASGI itself, as a middleware of Starlette's takes as long as half an answer."""

    def __init__(self, app: ASGIApp, token: str | None, seconds: Histogram) -> None:
        self._app, self._token, self._seconds = app, token, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start = perf_counter()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"
                route = getattr(scope.get("route"), "path", "other")
                self._seconds.labels(route, message["status"]).observe(perf_counter() - start)
            await send(message)

        if self._token is None and not LOCAL.fullmatch(Headers(scope=scope).get("host", "")):
            # A page in a browser, whose name resolves to this machine, is none of its callers.
            return await _refusal(400, "the header Host names another host than this one.")(scope, receive, watched)
        if self._token is None or scope["path"] == "/health" or _has(Headers(scope=scope), self._token):
            try:
                return await self._app(scope, receive, watched)
            except Exception:
                await _refusal(500, "the server failed on this; its standard error says where.")(
                    scope, receive, watched
                )
                raise
        refused = _refusal(401, "send the token of this server as Authorization: Bearer TOKEN.")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return await refused(scope, receive, watched)


def _has(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), token.encode())


def _refusal(code: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    text = sentence.encode(errors="replace").decode()
    return JSONResponse({"detail": text}, code, {"Retry-After": "1"} if code == 503 else headers)
