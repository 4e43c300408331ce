"""The runtime with a snapshot made of values and exposures that are kept in a list."""

from collections.abc import Sequence
from typing import Any

from abgate.asgi import Message, Receive, Scope, Send, send_json
from abgate.core.allocation import References
from abgate.core.errors import InvalidToken
from abgate.core.events import Exposure
from abgate.core.experiment import Experiment
from abgate.core.principal import Principal
from abgate.core.snapshot import Snapshot
from abgate.runtime.dispatch import RuntimeApp
from abgate.runtime.keys import RuntimeKeys
from abgate.settings import Settings
from abgate.storage.engine import create_engine
from tests.asgi import Answer, request
from tests.core.snapshots import snapshot

TENANT = "default"
KEY = b"k" * 32
NOW = 1_795_488_638.25
TOKENS = {"Bearer good": frozenset({"evaluate:experimentation"}), "Bearer other": frozenset({"read:experimentation"})}


class Fixed:
    """Snapshots that never change, unless a test sets another or makes them fail."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.fault: BaseException | None = None

    def get(self, tenant: str) -> Snapshot:
        if self.fault is not None:
            raise self.fault
        assert tenant == TENANT
        return self.snapshot


class Kept:
    """Exposures that are kept."""

    def __init__(self) -> None:
        self.all: list[Exposure] = []

    def record(self, tenant: str, exposure: Exposure) -> None:
        assert tenant == TENANT
        self.all.append(exposure)


class Harness:
    """An application and what is around it; settings by keyword, development mode unless another is given."""

    def __init__(
        self, *experiments: Experiment, refers_to: References | None = None, routes: Any = None, **settings: Any
    ) -> None:
        self.snapshots = Fixed(snapshot(*experiments, refers_to=refers_to))
        self.exposures = Kept()
        self.now = NOW
        self.behind: list[Scope] = []
        defaults = {"mode": "development", "upstream_authorize_url": "https://idp.example/authorize"}
        self.app = RuntimeApp(
            self._behind,
            engine=create_engine("sqlite:///nowhere"),
            snapshots=self.snapshots,  # type: ignore[arg-type]
            exposures=self.exposures,  # type: ignore[arg-type]
            authenticate=self.authenticate,
            tenant_of=lambda host: TENANT if host else "",
            keys=RuntimeKeys(create_engine("sqlite:///nowhere")),
            settings=Settings(**(defaults | settings)),
            token_key=KEY,
            routes=routes,
            clock=lambda: self.now,
        )

    async def authenticate(self, host: str | None, authorization: str | None) -> Principal:
        assert host == "localhost:8000"
        if authorization not in TOKENS:
            raise InvalidToken("There is no token.")
        return Principal(TENANT, "tests", TOKENS[authorization])

    async def _behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.behind.append(scope)
        if scope["type"] == "http":
            await send_json(send, 200, "behind")

    def request(self, method: str, target: str | bytes, **options: Any) -> Answer:
        return request(self.app, method, target, **options)

    def resolve(self, json: Any, **headers: str) -> Answer:
        return self.request(
            "POST", "/runtime/v1/resolve", json=json, headers={"authorization": "Bearer good"} | headers
        )

    def resolved(self, json: Any) -> Any:
        answer = self.resolve(json)
        assert answer.status == 200, answer.body
        return answer.json()

    @property
    def recorded(self) -> Sequence[Exposure]:
        return self.exposures.all


async def receive_nothing() -> Message:
    return {"type": "lifespan.startup"}
