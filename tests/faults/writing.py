"""Clients that keep creating and changing experiments, and remember what they were promised."""

import random
from collections.abc import Sequence
from itertools import count
from threading import Event, Thread
from typing import Any

import httpx
from msgspec import Struct

from tests.faults.things import by_segment, split


class Promise(Struct, frozen=True):
    """A write that was acknowledged: the experiment as the answer showed it, None when it was deleted."""

    id: str
    shown: dict[str, Any] | None


class Attempt(Struct, frozen=True):
    """A write whose answer never came: it may have happened or not, but never in part."""

    id: str | None
    method: str
    body: dict[str, Any]

    def may_have_made(self, shown: dict[str, Any] | None) -> bool:
        """Whether this is what the write makes when it happens."""
        if shown is None or self.method == "DELETE":
            return shown is None and self.method == "DELETE"
        return all(_is_within(value, shown[name]) for name, value in self.body.items())


class Writer:
    """Writes experiments of its own, on a flow of its own, one after the other, until the server is gone."""

    def __init__(self, name: str, flag: str, variations: list[str], segments: list[str]) -> None:
        self.name = name
        self.flag = flag
        self.variations = variations
        self.segments = segments
        self.random = random.Random(name)
        self.numbers = count(1)
        self.promised: dict[str, dict[str, Any]] = {}
        """What must be there, by id."""
        self.kept: list[Promise] = []
        """Every write that was acknowledged since `start`, in order."""
        self.attempt: Attempt | None = None

    def start(self, client: httpx.Client, until: Event) -> Thread:
        """Begin to write in a thread of its own; it ends when an answer stays out, is a 503, or when told to."""
        self.kept = []
        thread = Thread(target=self._write_on, args=(client, until))
        thread.start()
        return thread

    def settle(self, present: dict[str, dict[str, Any]]) -> None:
        """Take the write whose answer never came as done or not, by what is there now."""
        if self.attempt is None:
            return
        attempt, self.attempt = self.attempt, None
        ids = [id for id, shown in present.items() if shown["name"] == attempt.body.get("name")]
        for id in [attempt.id] if attempt.id else ids:
            shown = present.get(id)
            if shown != self.promised.get(id) and attempt.may_have_made(shown):
                self._remember(id, shown)

    def _write_on(self, client: httpx.Client, until: Event) -> None:
        while not until.is_set():
            self.attempt = self._choose()
            path = "/experiments" if self.attempt.id is None else f"/experiments/{self.attempt.id}"
            try:
                answer = client.request(self.attempt.method, path, json=self.attempt.body or None)
            except httpx.TransportError:
                return
            if answer.status_code == 503:
                return
            assert answer.is_success, answer.text
            shown = answer.json() if answer.content else None
            id = shown["id"] if shown else str(self.attempt.id)
            self.kept.append(Promise(id, shown))
            self._remember(id, shown)
            self.attempt = None

    def _remember(self, id: str, shown: dict[str, Any] | None) -> None:
        if shown is None:
            self.promised.pop(id, None)
        else:
            self.promised[id] = shown

    def _choose(self) -> Attempt:
        name = f"{self.name}, write {next(self.numbers)}"
        drafts = [id for id, shown in self.promised.items() if shown["status"] == "draft"]
        running = [id for id, shown in self.promised.items() if shown["status"] == "active"]
        dice = self.random.random()
        if len(drafts) < 3 or dice < 0.3:
            return Attempt(None, "POST", self._new(name))
        id = self.random.choice(drafts)
        if dice < 0.4:
            return Attempt(id, "DELETE", {})
        if dice < 0.5:
            status, id = ("completed", running[0]) if running else ("active", id)
            return Attempt(id, "PATCH", {"description": f"status by {name}", "status": status})
        edits = {"name": name, "description": f"edited by {name}"}
        return Attempt(
            id, "PATCH", {**edits, "allocations": self._allocations(self.promised[id]["allocation_strategy"])}
        )

    def _new(self, name: str) -> dict[str, Any]:
        strategy = self.random.choice(["percentage", "segment"])
        return {
            "name": name,
            "description": f"made by {name}",
            "feature_flag_id": self.flag,
            "authentication_flow": self.name,
            "allocation_strategy": strategy,
            "allocations": self._allocations(strategy),
        }

    def _allocations(self, strategy: str) -> list[dict[str, Any]]:
        if strategy == "percentage":
            return split(self.variations, treated=self.random.randrange(1, 100))
        return by_segment(self.variations, self.random.choice(self.segments))


def keeps(change: dict[str, Any], promise: Promise) -> bool:
    """Whether a change of the history is the one that a promise was about."""
    if change["resource_id"] != promise.id:
        return False
    after = change["after"]
    return after is None if promise.shown is None else after is not None and _is_within(after, promise.shown)


def _is_within(part: Any, whole: Any) -> bool:
    """Whether `whole` has everything that `part` has; answers show names beside ids."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _is_within(value, whole[name]) for name, value in part.items())
    if isinstance(part, Sequence) and not isinstance(part, str):
        return len(part) == len(whole) and all(map(_is_within, part, whole))
    return bool(part == whole)
