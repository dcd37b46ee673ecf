"""The service over HTTP: its routes, and what each takes and gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import msgspec

from nextclick import __version__
from nextclick.errors import MissingExtraError, NextclickError
from nextclick.filters import ItemTable, Rules
from nextclick.online.records import Recorder
from nextclick.online.running import Running
from nextclick.online.trial import Trial
from nextclick.serving import messages
from nextclick.serving.catalogue import Catalogue
from nextclick.serving.guard import App, Guard, Receive, Refused, Scope, Send
from nextclick.serving.keys import Keys
from nextclick.serving.measures import Measures
from nextclick.serving.options import Options
from nextclick.serving.rulebook import Rulebook
from nextclick.serving.service import Service, UnavailableError, check_models
from nextclick.serving.slot import Shared, Slot
from nextclick.serving.store import Limits, StoreDownError, open_store
from nextclick.serving.versions import located

try:
    from fastapi import FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, Response
except ImportError:  # pragma: no cover - said when an app is made
    FastAPI = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from msgspec import Struct

T = TypeVar("T")
Handler = Callable[["Request"], Awaitable["Response"]]

PAGES = Path(__file__).parent / "pages"
_FILES = {"shop.js": "text/javascript", "live.js": "text/javascript", "docs.js": "text/javascript",
          "page.css": "text/css", "icon.svg": "image/svg+xml"}  # fmt: skip

_encode = msgspec.json.Encoder().encode


def create_app(options: Options, *, workers: int = 1, shared: Mapping[str, Shared] | None = None) -> App:
    """Make the application: models are loaded, the store is open, nothing is served yet.

    workers: how many processes share the rate limit;  shared: models that are open already, by name.
    Raises ArtifactError, ConfigError or DataError for what cannot be served, and MissingExtraError without
    FastAPI.
    """
    if FastAPI is None:
        raise MissingExtraError("serving", "serve")
    measures = Measures()
    service = _service(options, measures, shared or {})
    catalogue = Catalogue.open(options.catalogue) if options.catalogue else None
    keys = Keys(Path(options.keys)) if options.keys else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="nextclick", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Recommends the next item to sessions. Unknown fields are refused.",
    )  # fmt: skip
    app.state.service = service
    routes = _Routes(app, service, measures, catalogue, options)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _misspelt)
    app.add_exception_handler(Exception, _failed)
    app.add_exception_handler(404, _no_route)
    app.add_exception_handler(405, _no_method)
    hosts = catalogue.image_hosts if catalogue else ()
    outer: Any = Direct(app, routes.direct)
    outer = Guard(outer, options, measures, keys, workers=workers, image_hosts=hosts)
    if options.origins:  # around the guard: browsers ask first without a key, and refusals are to be read too
        from starlette.middleware.cors import CORSMiddleware

        outer = CORSMiddleware(
            outer, allow_origins=list(options.origins), allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )  # fmt: skip
    return cast(App, outer)


def check(options: Options) -> None:
    """Raise most of what ``create_app`` would, in a fraction of its time."""
    _rules(options)
    for _, path in options.models:
        located(Path(path))
    if options.keys:
        Keys(Path(options.keys))
    if options.catalogue:
        Catalogue.open(options.catalogue)
    if options.trial:
        trial = Trial.read(options.trial)
        check_models(trial, [name for name, _ in options.models])


def _rules(options: Options) -> Rulebook:
    rules = Rules.read(options.rules) if options.rules else None
    items = ItemTable.read(options.items, id_column=options.items_id) if options.items else None
    return Rulebook(rules, items)


def _service(options: Options, measures: Measures, shared: Mapping[str, Shared]) -> Service:
    book = _rules(options)
    slots = {
        name: Slot(
            name,
            Path(path),
            book,
            measures,
            runtime=options.runtime,
            cached=options.cache,
            shared=shared.get(name),
        )
        for name, path in options.models
    }
    trial = Trial.read(options.trial) if options.trial else None
    recorder = Recorder(Path(options.records)) if trial is not None and options.records else None
    store = open_store(options.store, Limits(options.longest, options.ttl, options.max_sessions))
    return Service(slots, store, measures, options, trial=trial, recorder=recorder)


class Direct:
    """Takes questions and events past FastAPI, which describes these routes.

    Its layers know nothing that these handlers need, and take longer than a quick model's answer.
    """

    def __init__(self, app: App, handlers: Mapping[str, Handler]) -> None:
        self._app, self._handlers = app, handlers
        self.state: Any = getattr(app, "state", None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope.get("path", "")) if scope.get("method") == "POST" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await handler(request)
        except Refused as refused:
            response = await _refused(request, refused)
        await response(scope, receive, send)


class _Routes:
    """The routes of an application."""

    def __init__(
        self,
        app: FastAPI,
        service: Service,
        measures: Measures,
        catalogue: Catalogue | None,
        options: Options,
    ) -> None:
        self._app, self._service, self._measures = app, service, measures
        self._catalogue, self._options = catalogue, options
        self._parts: dict[str, Any] = {}
        self._running: Running | None = None
        self.direct: dict[str, Handler] = {}
        app.openapi = self._openapi  # type: ignore[method-assign]
        post, get = self._post, self._get
        post("/v1/recommend", self.recommend, messages.Recommend, messages.Answer)
        post("/v1/recommend/batch", self.recommend_many, messages.RecommendMany, messages.Answers)
        post("/v1/events", self.event, messages.Event, messages.Kept)
        post("/v1/events/batch", self.events, messages.Events, messages.KeptMany)
        post("/v1/explain", self.explain, messages.Explain, None)
        post("/v1/session/forget", self.forget, messages.Forget, messages.Forgotten)
        get("/v1/models", self.models, "The models in service, their versions, and the default.")
        get("/v1/catalogue", self.catalogue, "Products, for the page: each item named, or a page of them.")
        get("/v1/experiment", self.experiment, "What the experiment shows so far.")
        get("/v1/admin/state", self.state, "Versions in service and what is wrong.")
        get("/healthz", self.health, "Whether the process is alive.")
        get("/readyz", self.ready, "Whether lists can be answered, and what is degraded.")
        get("/metrics", self.metrics, "Figures for Prometheus.", "text/plain")
        app.post("/v1/admin/look", name="look", description="Look for other versions now.",
                 responses=_responses(None, None))(self.look)  # fmt: skip
        for path, file in (("/", "shop.html"), ("/experiment", "live.html"), ("/docs", "docs.html")):
            app.get(path, include_in_schema=False)(_page(file))
        app.get("/page/{name}", include_in_schema=False)(self.file)
        app.get("/pictures/{name:path}", include_in_schema=False)(self.picture)

    # -- lists and events

    async def recommend(self, request: Request) -> Response:
        asked = await _read(request, _decoders[messages.Recommend])
        return _reply(await self._do(self._service.recommend(asked, _id(request))))

    async def recommend_many(self, request: Request) -> Response:
        asked = await _read(request, _decoders[messages.RecommendMany])
        many = self._service.recommend_many(asked.requests, _id(request))
        return _reply(messages.Answers(await self._do(many)))

    async def event(self, request: Request) -> Response:
        return _reply(await self._do(self._service.event(
            await _read(request, _decoders[messages.Event]), _id(request))))  # fmt: skip

    async def events(self, request: Request) -> Response:
        asked = await _read(request, _decoders[messages.Events])
        return _reply(await self._do(self._service.events(asked.events, _id(request))))

    async def explain(self, request: Request) -> Response:
        asked = await _read(request, _decoders[messages.Explain])
        return _reply(await self._do(self._service.explain(asked, _id(request))))

    async def forget(self, request: Request) -> Response:
        asked = await _read(request, _decoders[messages.Forget])
        return _reply(messages.Forgotten(await self._do(self._service.store.forget(asked.session))))

    # -- state

    async def models(self) -> Response:
        state = self._service.state()
        trial = self._service.trial.name if self._service.trial is not None else None
        return _reply({"default": state["default"], "models": state["models"], "experiment": trial})

    async def catalogue(
        self, item: Annotated[list[str] | None, Query()] = None, category: str = "", page: int = 0
    ) -> Response:
        if self._catalogue is None:
            return _reply({"items": [], "categories": [], "pages": 0})
        if item:
            return _reply({"items": self._catalogue.some(item[:200])})
        return _reply(self._catalogue.page(category, max(0, page)))

    async def experiment(self) -> Response:
        if self._service.trial is None or self._options.records is None:
            return _reply({"running": False})
        if self._running is None:
            self._running = Running(self._service.trial, Path(self._options.records))
        found = await asyncio.get_running_loop().run_in_executor(None, self._running.look)
        return _reply({"running": True, **found})

    async def state(self) -> Response:
        return _reply(self._service.state())

    async def look(self, request: Request) -> Response:
        """Look for other versions now."""
        changed = {name: await slot.look() for name, slot in self._service.slots.items()}
        return _reply({"changed": changed, **self._service.state()})

    async def health(self) -> Response:
        return _reply({"alive": True})

    async def ready(self) -> Response:
        return _reply(self._service.state())

    async def metrics(self) -> Response:
        return Response(self._measures.exposed(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # -- files of the page

    async def file(self, name: str) -> Response:
        if name not in _FILES:
            raise Refused(404, "no such file")
        return FileResponse(PAGES / name, media_type=_FILES[name], headers={"Cache-Control": "no-cache"})

    async def picture(self, name: str) -> Response:
        file = self._catalogue.picture(name) if self._catalogue is not None else None
        if file is None:
            raise Refused(404, "no such picture")
        return FileResponse(file, headers={"Cache-Control": "max-age=86400"})

    # -- how they are added

    def _post(self, path: str, handler: Handler, takes: type[Struct], gives: type[Struct] | None) -> None:
        self.direct[path] = handler
        _decoders[takes] = msgspec.json.Decoder(takes)
        (schema,), parts = msgspec.json.schema_components([takes], ref_template="#/components/schemas/{name}")
        self._parts.update(parts)
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        self._app.post(
            path, name=path.removeprefix("/v1/").replace("/", "-"), description=_about(takes),
            openapi_extra={"requestBody": body}, responses=_responses(gives, self._parts),
        )(handler)  # fmt: skip

    def _get(self, path: str, handler: Any, about: str, form: str = "application/json") -> None:
        responses = _responses(None, None)
        if form != "application/json":
            responses[200] = {"description": "done", "content": {form: {"schema": {"type": "string"}}}}
        self._app.get(
            path, name=path.strip("/"), description=about, responses=responses, response_class=Response
        )(handler)

    def _openapi(self) -> dict[str, Any]:
        """Return FastAPI's schema with the messages in it, of which FastAPI knows nothing."""
        schema = type(self._app).openapi(self._app)
        schema.setdefault("components", {}).setdefault("schemas", {}).update(self._parts)
        return schema

    async def _do(self, work: Any) -> Any:
        try:
            return await work
        except UnavailableError as error:
            raise Refused(503, str(error), {"Retry-After": "1"}) from error
        except StoreDownError:
            raise Refused(503, "the store is down; send it again", {"Retry-After": "1"}) from None
        except NextclickError as error:
            raise Refused(422, str(error)) from error


_decoders: dict[type[Any], Any] = {}


def _responses(gives: type[Any] | None, parts: dict[str, Any] | None) -> dict[int | str, dict[str, Any]]:
    """Say which answers a route gives, for the schema; parts: where the schemas of messages are added."""
    (problem, *rest), found = msgspec.json.schema_components(
        [messages.Problem, *([gives] if gives else [])], ref_template="#/components/schemas/{name}"
    )
    if parts is not None:
        parts.update(found)
    good = rest[0] if rest else {"type": "object"}
    said = {
        400: "not JSON", 401: "no key, or one that is not known", 403: "not allowed", 408: "too slow",
        413: "too large", 422: "not as it should be", 429: "too often", 503: "not now; send it again",
    }  # fmt: skip
    if parts is None:
        said = {code: said[code] for code in (401, 403, 422, 429)}
        problem = {"type": "object"}
    return {
        200: {"description": "done", "content": {"application/json": {"schema": good}}},
        **{
            code: {"description": text, "content": {"application/json": {"schema": problem}}}
            for code, text in said.items()
        },
    }


def _about(takes: type[Any]) -> str:
    return (takes.__doc__ or "").strip()


async def _read(request: Request, decoder: Any) -> Any:
    """Read a body. Raises Refused for one that is not JSON, or not as it should be."""
    body = await request.body()
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refused(422, messages.remedy(str(error), decoder.type)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = f"the body is not JSON in UTF-8: {error}; send one JSON object, see /docs"
        raise Refused(400, said) from None


def _reply(content: Any, status: int = 200) -> Response:
    return Response(_encode(content), status, media_type="application/json")


def _id(request: Request) -> str:
    return cast(str, request.scope["state"]["request"])


def _page(file: str) -> Any:
    async def page() -> Response:
        return FileResponse(PAGES / file, media_type="text/html", headers={"Cache-Control": "no-cache"})

    return page


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    problem = {"error": error.message, "request": _id(request)}
    return JSONResponse(problem, error.status, headers=error.headers)


async def _misspelt(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    return JSONResponse({"error": f"{said}; see /docs", "request": _id(request)}, 422)


async def _failed(request: Request, error: Exception) -> Response:
    said = "the service failed; the request id finds it in the log"
    return JSONResponse({"error": said, "request": _id(request)}, 500)


async def _no_route(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is nothing here; see /docs", "request": _id(request)}, 404)


async def _no_method(request: Request, error: Exception) -> Response:
    allowed = getattr(error, "headers", None) or {}
    said = {"error": "another method is taken here; see /docs", "request": _id(request)}
    return JSONResponse(said, 405, headers=allowed)
