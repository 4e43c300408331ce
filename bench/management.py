"""What reading and changing an experiment costs: at 100 and at 100,000 experiments, and against a bare transaction.

The questions: does the time of a request grow with what is stored, and how much of a PATCH is abgate's own?
"""

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from abgate import bootstrap
from abgate.settings import Settings
from harness import bare, seeding, servers
from harness.client import Client
from harness.report import Finding, print_report
from harness.seeding import Tenant

GROWTH_GOAL = 1.3
BARE_GOAL = 3.0
MEMORY = Path("/dev/shm")
# One for whichever server is asked, one for who asks: where threads run is then not up to chance.
CORES = sorted(os.sched_getaffinity(0))
PATH = "/api/v2/experimentation/experiments"

Request = tuple[str, str, bytes]
Requests = Callable[["Server"], Iterator[Request]]


class Server(Struct, frozen=True):
    """A running server, and the tenant that it serves."""

    client: Client
    tenant: Tenant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=100)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=60, help="of each kind, to each server, in a round")
    options = parser.parse_args()
    os.sched_setaffinity(0, {CORES[-1]})
    findings = []
    with ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="abgate-bench-")))
        small, large = (stack.enter_context(_abgate(disk, size)) for size in (options.small, options.large))
        for name, requests in GROWTH.items():
            findings.append(Finding(f"{name}_growth", _ratios(options, large, small, requests), GROWTH_GOAL))
        floor = stack.enter_context(_bare(disk, options.small, small.tenant))
        findings.append(Finding("patch_vs_bare", _ratios(options, small, floor, _patch), BARE_GOAL))
    if MEMORY.is_dir():
        with ExitStack() as stack:
            memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="abgate-bench-", dir=MEMORY)))
            small = stack.enter_context(_abgate(memory, options.small))
            floor = stack.enter_context(_bare(memory, options.small, small.tenant))
            findings.append(Finding("patch_vs_bare_in_memory", _ratios(options, small, floor, _patch)))
    print_report(findings)


@contextmanager
def _abgate(directory: Path, size: int) -> Iterator[Server]:
    """Serve a new database with `size` experiments in it."""
    data = directory / str(size)
    engine = bootstrap.open_database(Settings(data=str(data)), 8000)
    tenant = seeding.fill(engine, size, seed=size)
    engine.dispose()
    token = servers.make_token(data)
    with servers.abgate(data, core=CORES[0]) as port, _connected(port, token) as client:
        yield Server(client, tenant)


@contextmanager
def _bare(directory: Path, size: int, tenant: Tenant) -> Iterator[Server]:
    """Serve a copy of that database with nothing but the three writes of a PATCH."""
    copy = directory / "bare.db"
    shutil.copyfile(directory / str(size) / "abgate.db", copy)
    with (
        servers.module(bare.__name__, str(copy), "token", core=CORES[0]) as port,
        _connected(port, "token") as client,
    ):
        yield Server(client, tenant)


@contextmanager
def _connected(port: int, token: str) -> Iterator[Client]:
    client = Client(port, token)
    try:
        yield client
    finally:
        client.close()


def _ratios(options: argparse.Namespace, one: Server, other: Server, requests: Requests) -> list[float]:
    """Return how many times as long `one` takes as `other`, a round each.

    The two are asked in turn, so that whatever else the machine does meets both alike.
    """
    of_one, of_other = requests(one), requests(other)
    _medians((one, of_one), (other, of_other), count=options.requests)  # warms up
    medians = [_medians((one, of_one), (other, of_other), count=options.requests) for _ in range(options.rounds)]
    return [time_of_one / time_of_other for time_of_one, time_of_other in medians]


def _medians(*asked: tuple[Server, Iterator[Request]], count: int) -> Sequence[float]:
    seconds: list[list[float]] = [[] for _ in asked]
    for _ in range(count):
        for (server, requests), times in zip(asked, seconds, strict=True):
            answer = server.client.send(*next(requests))
            assert answer.status == 200, answer
            times.append(answer.seconds)
    return [statistics.median(times) for times in seconds]


def _get(server: Server) -> Iterator[Request]:
    random_ = random.Random(1)
    while True:
        yield "GET", f"{PATH}/{random_.choice(server.tenant.experiments).id}", b""


def _list(query: str) -> Requests:
    def requests(server: Server) -> Iterator[Request]:
        random_ = random.Random(1)
        while True:
            flag = random_.choice(server.tenant.experiments).feature_flag_id
            yield "GET", f"{PATH}?{query.format(flag=flag)}", b""

    return requests


def _list_from_the_middle(server: Server) -> Iterator[Request]:
    """Pages that start half-way through, whose checkpoint the server itself gave."""
    past = len(server.tenant.experiments) // 2
    page = {"next": None}
    while past > 0:
        query = f"?take=50&from={page['next']}" if page["next"] else "?take=50"
        page = json.loads(server.client.send("GET", PATH + query).body)
        past -= 50
    while True:
        yield "GET", f"{PATH}?take=10&from={page['next']}", b""


def _patch(server: Server) -> Iterator[Request]:
    """Edits of drafts: the name, the description and the shares at once."""
    random_ = random.Random(1)
    drafts = [each for each in server.tenant.experiments if each.status == "draft" and each.levels]
    drafts = [each for each in drafts if each.allocation_strategy == "percentage"]
    for number in range(1 << 30):
        draft = random_.choice(drafts)
        weight = random_.randrange(1, 100)
        edits = {
            "name": f"{draft.name}, revision {number:06}",
            "description": f"Whether more people log in with a passkey when they are asked, the {number:06}th time.",
            "allocations": [
                {"variation_id": item.variation_id, "is_control": item.is_control, "weight": share}
                for item, share in zip(draft.allocations, (100 - weight, weight), strict=True)
            ],
        }
        yield "PATCH", f"{PATH}/{draft.id}", json.dumps(edits).encode()


GROWTH: dict[str, Requests] = {
    "get": _get,
    "list_first_page": _list("take=25"),
    "list_from_the_middle": _list_from_the_middle,
    "list_of_a_status": _list("take=10&status=completed"),
    "list_of_a_flow": _list("take=10&authentication_flow=mfa_enrollment"),
    "list_of_a_feature_flag": _list("take=10&feature_flag_id={flag}"),
    "list_of_a_feature_flag_and_status": _list("take=10&feature_flag_id={flag}&status=draft"),
    "patch": _patch,
}


if __name__ == "__main__":
    main()
