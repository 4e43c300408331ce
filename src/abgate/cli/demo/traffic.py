"""People who log in: browsers with real user agents, through the gateway to the provider and back."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from urllib.parse import parse_qs, urlencode, urlsplit

import uvloop
from msgspec import Struct

from abgate.cli.demo.children import DemoStopped
from abgate.cli.demo.connection import Connection, connect

CONNECTIONS = 16
CALLBACK = "https://shop.example/callback"
CLIENT_ID = "shop-web"
CONNECTION = "Username-Password-Authentication"

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Person(Struct, kw_only=True):
    """Someone with a device, and what becomes of their login. A login succeeds when `luck` is below the true rate."""

    number: int
    user_agent: str
    luck: float
    slip: float
    cookie: str = ""
    variation_id: str | None = None
    is_early: bool = False
    early_variation_id: str | None = None
    asked_at: datetime | None = None
    answered_at: datetime | None = None
    is_logged_in: bool = False

    @property
    def name(self) -> str:
        """What they log in as."""
        return f"person-{self.number:06}"

    @property
    def device(self) -> str:
        """The device's identifier, which the gateway gave it."""
        return self.cookie.partition("=")[2]


def make_people(count: int, *, seed: int) -> list[Person]:
    """Return people with the same devices and the same luck for the same seed."""
    source = random.Random(seed)  # noqa: S311  # a simulation
    lines = (files("abgate.cli.demo") / "user_agents.txt").read_text("utf-8").splitlines()
    weighted = [line.split(" ", 1) for line in lines]
    user_agents = source.choices([text for _, text in weighted], [int(weight) for weight, _ in weighted], k=count)
    return [
        Person(number=number, user_agent=user_agent, luck=source.random(), slip=source.random())
        for number, user_agent in enumerate(user_agents)
    ]


def make_query(state: str) -> str:
    """Return the parameters of an authorization request, as the shop sends its visitors to log in."""
    return urlencode(
        {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "scope": "openid profile",
            "redirect_uri": CALLBACK,
            "connection": CONNECTION,
            "state": state,
        }
    )


class Browsers:
    """The people's browsers, each with cookies of its own."""

    def __init__(self, gateway: str, provider: str, rates: Mapping[str | None, float]) -> None:
        """Log in at `gateway`, which is to lead to the endpoint `provider`; `rates` gives the truth by variation id."""
        self._gateway = gateway
        self._provider = provider
        self._rates = rates

    def look(self, people: Sequence[Person], advance: Callable[[int], None]) -> None:
        """Have each of them open the login page, and leave."""
        uvloop.run(self._each(people, self._open, advance))

    def log_in(self, people: Sequence[Person], advance: Callable[[int], None]) -> None:
        """Have each of them log in, as far as their luck goes."""
        uvloop.run(self._log_in_each(people, advance))

    async def _log_in_each(self, people: Sequence[Person], advance: Callable[[int], None]) -> None:
        # oidc-provider-mock answers 500 when one of its threads reads the list of who logged in last while another
        # adds to it. So there is one connection to it, on which it takes one login after the other.
        provider = await connect(self._provider)

        async def log_in(gateway: Connection, person: Person) -> None:
            location = await self._open(gateway, person)
            form = {"sub": person.name} if person.luck < self._rates[person.variation_id] else {"action": "deny"}
            back = await _redirected(provider, person, location, to=CALLBACK, form=form)
            # Whether they are logged in is what the provider says, not what was meant to happen.
            person.is_logged_in = "code" in parse_qs(urlsplit(back.location).query)
            person.answered_at = datetime.now(UTC)

        try:
            await self._each(people, log_in, advance)
        finally:
            provider.close()

    async def _open(self, gateway: Connection, person: Person) -> str:
        """Go to the gateway and return where it leads; keep the cookie and the variation."""
        person.asked_at = datetime.now(UTC)
        url = f"{self._gateway}/authorize?{make_query(person.name)}"
        redirect = await _redirected(gateway, person, url, to=self._provider)
        given = parse_qs(urlsplit(redirect.location).query)
        person.variation_id = given.get("ext-variation_id", [None])[0]
        person.cookie = redirect.cookie or person.cookie
        return redirect.location

    async def _each(
        self,
        people: Sequence[Person],
        act: Callable[[Connection, Person], Awaitable[object]],
        advance: Callable[[int], None],
    ) -> None:
        waiting = iter(people)

        async def work() -> None:
            gateway = await connect(self._gateway)
            try:
                for person in waiting:
                    await act(gateway, person)
                    advance(1)
            finally:
                gateway.close()

        await asyncio.gather(*(work() for _ in range(min(CONNECTIONS, len(people)))))


class _Redirect(Struct, frozen=True):
    location: str
    cookie: str


async def _redirected(
    connection: Connection, person: Person, url: str, *, to: str, form: Mapping[str, str] | None = None
) -> _Redirect:
    headers = {"User-Agent": person.user_agent}
    if form is not None:
        answer = await connection.request("POST", url, headers | _FORM, urlencode(form).encode())
    else:
        answer = await connection.request("GET", url, headers | ({"Cookie": person.cookie} if person.cookie else {}))
    location = answer.headers.get("location", "")
    if answer.status != 302 or not location.startswith(to + "?"):
        what = location or repr(answer.body[:300])
        raise DemoStopped(f"{url} answered {answer.status} {what} instead of a redirect to {to}.")
    return _Redirect(location, answer.headers.get("set-cookie", "").partition(";")[0])
