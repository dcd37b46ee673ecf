"""What every request passes before it is answered: who asks, how much, how fast, and with which headers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from nextclick.serving.keys import Keys
from nextclick.serving.logs import log, say
from nextclick.serving.measures import Measures
from nextclick.serving.messages import Problem
from nextclick.serving.options import Options

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What each route needs; what is not here is public: health, the page and its files.
ROLES = {
    "/v1/recommend": "recommend",
    "/v1/recommend/batch": "recommend",
    "/v1/explain": "recommend",
    "/v1/models": "recommend",
    "/v1/catalogue": "recommend",
    "/v1/events": "events",
    "/v1/events/batch": "events",
    "/v1/session/forget": "events",
    "/v1/experiment": "admin",
    "/v1/admin/state": "admin",
    "/v1/admin/look": "admin",
    "/metrics": "admin",
}
_CLIENTS = 10_000  # whose rate is remembered
_REQUEST = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PUBLIC = frozenset({"/healthz", "/readyz", "/openapi.json", "/", "/docs", "/experiment"})


def policy(image_hosts: tuple[str, ...] = ()) -> str:
    """Return the content security policy: nothing from elsewhere but the catalogue's own pictures."""
    images = " ".join(("'self'", *image_hosts))
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Refused(Exception):
    """A request is refused with a status and a message that says what to do."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: App,
        options: Options,
        measures: Measures,
        keys: Keys | None,
        *,
        workers: int = 1,
        image_hosts: tuple[str, ...] = (),
    ) -> None:
        self._app, self._options, self._measures, self._keys = app, options, measures, keys
        self._rate = options.rate / workers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._headers = [
            (b"content-security-policy", policy(image_hosts).encode("latin-1")),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"DENY"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request = given.decode("ascii") if _REQUEST.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request"] = request
        status = 0

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()), *self._headers, (b"x-request-id", request.encode("ascii"))
                ]  # fmt: skip
            await send(message)

        try:
            self._admit(scope, headers)
            await self._app(scope, self._bounded(headers, receive), reply)
        except Refused as refused:
            if status == 0:
                await _refuse(reply, refused, request)
        except Exception:
            log.exception("a request failed", extra={"about": {"request": request, "path": scope["path"]}})
            if status == 0:
                await _refuse(
                    reply, Refused(500, "the service failed; the request id finds it in the log"), request
                )
        finally:
            seconds = time.perf_counter() - start
            known = scope["path"] in ROLES or scope["path"] in _PUBLIC
            self._measures.request(scope["path"] if known else "other", status, seconds)
            if self._options.access_log:
                say(
                    "request", request=request, method=scope["method"], path=scope["path"], status=status,
                    ms=round(seconds * 1000, 2),
                )  # fmt: skip

    # -- who

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        role = ROLES.get(scope["path"])
        if role is not None:
            self._check_site(headers)
        client = scope["client"][0] if scope.get("client") else ""
        who = client
        if role is not None and self._keys is not None:
            who = self._check_key(headers, role)
        if (
            role == "admin"
            and not self._options.admin_anywhere
            and not _is_here(client, headers, self._options)
        ):
            raise Refused(
                403,
                "this is answered on the machine of the service only, asked for at localhost or an address; "
                "see --admin-anywhere",
            )
        if self._rate and role is not None:
            self._check_rate(who)

    def _check_site(self, headers: dict[bytes, bytes]) -> None:
        """Refuse what a page of another site sends without asking first, which CORS does not stop."""
        if headers.get(b"sec-fetch-site") not in (b"cross-site", b"same-site"):
            return
        origin, allowed = headers.get(b"origin", b"").decode("latin-1"), self._options.origins
        if origin not in allowed and "*" not in allowed:
            raise Refused(403, "pages of other sites may not ask; start the service with --cors ORIGIN")

    def _check_key(self, headers: dict[bytes, bytes], role: str) -> str:
        assert self._keys is not None
        secret = headers.get(b"x-api-key", b"")
        bearer = headers.get(b"authorization", b"")
        if bearer[:7].lower() == b"bearer ":
            secret = bearer[7:].strip()
        challenge = {"WWW-Authenticate": "Bearer"}
        if not secret:
            raise Refused(401, "an API key is needed: send it as Authorization: Bearer KEY", challenge)
        key = self._keys.find(secret.decode("latin-1"))
        if key is None:
            raise Refused(401, "this API key is not known; ask for another one", challenge)
        if key.ends is not None and key.ends < time.time():
            raise Refused(
                401,
                f"the API key {key.name!r} expired at {key.end}; ask whoever runs the service for another "
                "one, made with: nextclick keys add",
                challenge,
            )
        if not key.allows(role):
            raise Refused(403, f"the API key {key.name!r} may not do this: it needs the role {role}")
        return f"key {key.name}"

    def _check_rate(self, who: str) -> None:
        """A bucket for each client: filled at the rate, twice a second's worth deep."""
        now = time.monotonic()
        deep = max(1.0, 2 * self._rate)
        level, seen = self._buckets.pop(who, (deep, now))
        level = min(deep, level + (now - seen) * self._rate)
        self._buckets[who] = (max(0.0, level - 1), now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if level < 1:
            wait = str(max(1, round((1 - level) / self._rate)))
            raise Refused(429, "too many requests; wait and send it again", {"Retry-After": wait})

    # -- how much

    def _bounded(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Return ``receive`` with an end: to the bytes of a body, and to the time it may take."""
        most = self._options.max_body
        said = headers.get(b"content-length", b"")
        if said.isdigit() and int(said) > most:
            raise Refused(
                413, f"the body has {int(said):,} bytes, at most {most:,} are taken; send less at once"
            )
        got = 0
        until = time.monotonic() + self._options.patience
        whole = False

        async def bounded() -> Message:
            nonlocal got, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise Refused(
                    408, "the body did not arrive in time; send it again", {"Connection": "close"}
                ) from None
            if message["type"] == "http.disconnect":
                raise Refused(400, "the connection ended before the body was there; send it again")
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if got > most:
                    raise Refused(413, f"the body has more than {most:,} bytes; send less at once")
            return message

        return bounded


async def _refuse(send: Send, refused: Refused, request: str) -> None:
    body = msgspec.json.encode(Problem(refused.message, request))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in refused.headers.items()]
    if refused.status in (408, 413):  # the rest of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_here(client: str, headers: dict[bytes, bytes], options: Options) -> bool:
    """Whether a request comes from this machine itself, and not from a proxy on it that was not announced."""
    if not options.proxies and (b"x-forwarded-for" in headers or b"forwarded" in headers):
        return False
    if not _names_here(headers.get(b"host", b"").decode("latin-1")):
        return False
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return client == ""  # a local socket


def _names_here(host: str) -> bool:
    """Whether a Host header may name this machine, and not a site whose name was made to lead here.

    A page of such a site is of the same origin for the browser, so that nothing else would stop it.
    """
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() in ("", "localhost", socket.gethostname().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


logging.getLogger("nextclick.serving").addHandler(logging.NullHandler())
