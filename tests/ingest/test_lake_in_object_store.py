"""The lake in an object store: a real server that speaks S3 and refuses the second of two that write the same thing."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from abgate.core.person import Person
from abgate.ingest.lake_forgetting import Forgotten, forget
from abgate.ingest.lake_upkeep import compact, vacuum
from abgate.storage.lake import Lake, Overtaken, append, correct, last_sequence
from abgate.storage.lake_rows import rows_of
from tests.ingest.lakes import rows
from tests.storage.test_lake import event

BUCKET = "lake-of-tests"
WRITERS = 3
BATCHES = 2
EACH = 5


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The store's address, which everything in this process then finds in the environment, as an operator sets it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
    ):
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "secret-of-tests",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)
        try:
            wait_for(port)
            boto3.client("s3", endpoint_url=address, region_name="eu-west-1").create_bucket(
                Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
            )
            yield address
        finally:
            server.kill()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_several_writers_lose_nothing_and_write_nothing_twice(store: str) -> None:
    lake = Lake(f"s3://{BUCKET}/contended")
    failures: list[BaseException] = []

    def write() -> None:
        try:
            while True:
                table = lake.open("events")
                after = last_sequence(table)
                if after >= WRITERS * BATCHES * EACH:
                    return
                following = [event(sequence) for sequence in range(after + 1, after + EACH + 1)]
                try:
                    append(table, rows_of("events", following), after=after, last=after + EACH)
                except Overtaken:
                    continue
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert rows(lake, columns=["sequence"]) == [(sequence,) for sequence in range(1, WRITERS * BATCHES * EACH + 1)]


def test_it_is_corrected_kept_up_and_forgets(store: str) -> None:
    lake = Lake(f"s3://{BUCKET}/kept-up")
    for sequence in range(1, 4):
        append(lake.open("events"), rows_of("events", [event(sequence)]), after=sequence - 1, last=sequence)
    correct(lake.open("events"), rows_of("events", [event(3, user_id="corrected")]), after=0, last=1)
    assert rows(lake, columns=["user_id"])[-1] == ("corrected",)
    assert compact(lake, "events", many=3) == 1
    assert vacuum(lake, "events") == 0
    assert len(lake.read("events").file_uris()) == 1
    assert rows(lake, columns=["sequence", "day"]) == [(sequence, "2026-01-31") for sequence in range(1, 4)]
    assert rows(lake, columns=["sequence"], as_of=2) == [(1,), (2,)]
    assert rows(lake, "exposures") == []
    # Also the first file, in which the event did not name the user yet.
    assert forget(lake, Person("default", user_id="corrected")) == Forgotten(rows=1, files=3)
    assert rows(lake, columns=["sequence"]) == [(1,), (2,)]
    assert rows(lake, columns=["sequence"], as_of=4) == [(1,), (2,)]
