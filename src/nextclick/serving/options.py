"""How a service is run; travels from the command to its workers."""

from __future__ import annotations

from nextclick.errors import MissingExtraError
from nextclick.serving.opening import Runtime

try:
    import msgspec
except ImportError:
    raise MissingExtraError("serving", "serve") from None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ``nextclick serve`` takes.

    models: name and path of each, the first answers where none is named.  store: see ``open_store``.
    longest: clicks of a session that are read;  ttl: seconds that a session is kept;  deadline: seconds for
    a list, beyond it the most clicked items;  poll: seconds between looks for other versions;  cache: answers
    kept per model;  rate: requests a second for each client, 0 for any number;  max_body: bytes;  patience:
    seconds that a client may take to send its body;  keys: file of keys;  admin_anywhere: figures and
    versions may be asked for from other machines, with a key;  proxies: addresses whose X-Forwarded-For is
    believed;  origins: sites whose pages may ask (CORS);  trial, records: file of the experiment and folder
    of its records;  catalogue: file of items, or folder of a demo shop, for the page;  access_log: log every
    request;  log_contents: log sessions, items and lists too.
    """

    models: tuple[tuple[str, str], ...]
    store: str = "memory"
    runtime: Runtime = "auto"
    rules: str | None = None
    items: str | None = None
    items_id: str | None = None
    longest: int = 50
    ttl: float = 1800.0
    max_sessions: int = 1_000_000
    deadline: float = 0.1
    poll: float = 1.0
    cache: int = 10_000
    rate: float = 0.0
    max_body: int = 262_144
    patience: float = 5.0
    keys: str | None = None
    admin_anywhere: bool = False
    proxies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    trial: str | None = None
    records: str | None = None
    catalogue: str | None = None
    access_log: bool = False
    log_contents: bool = False
