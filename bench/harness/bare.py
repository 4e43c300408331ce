"""The least that a PATCH of an experiment can cost: its three writes in one SQLite transaction, and nothing else.

Run as ``python -m harness.bare PORT DATABASE TOKEN``. The HTTP server is the one that abgate runs on, with the same
event loop and parser. The bearer is compared, the body parsed as JSON, merged into the experiment that is kept in
memory, written and answered. Nothing is checked, nothing is read, there is no SQL toolkit and no thread: this is a
floor, not a product.
"""

import hmac
import sqlite3
import sys
from typing import Any

import msgspec
import uvicorn

NOW = "2026-01-02T03:04:05.678Z"


class Bare:
    """An ASGI application that knows PATCH only."""

    def __init__(self, database: str, token: str) -> None:
        self.bearer = f"Bearer {token}".encode()
        self.connection = sqlite3.connect(database, isolation_level=None)
        # As abgate.storage.engine has them.
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self.connection.execute(f"PRAGMA {pragma}")
        rows = self.connection.execute("SELECT id, revision, body FROM experiments")
        self.experiments = {id: (revision, body) for id, revision, body in rows}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        bearer = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(bearer, self.bearer):
            raise PermissionError("another token")
        message = await receive()
        raw = message["body"]
        while message["more_body"]:
            message = await receive()
            raw += message["body"]
        answer = self.patch(scope["path"].rpartition("/")[2], msgspec.json.decode(raw))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def patch(self, id: str, edits: dict[str, Any]) -> bytes:
        revision, before = self.experiments[id]
        experiment = msgspec.json.decode(before) | edits | {"updated_at": NOW}
        after = msgspec.json.encode(experiment).decode()
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        (number,) = execute(
            "UPDATE tenants SET number = number + 1 WHERE id = 'default' RETURNING number"
        ).fetchone()  # fmt: skip
        execute(
            "INSERT INTO changes (tenant, number, at, actor, action, kind, resource_id, before, after)"
            " VALUES ('default', ?, ?, 'bench', 'update', 'experiment', ?, ?, ?)",
            (number, NOW, id, before, after),
        )
        execute(
            "UPDATE experiments SET revision = ?, name = ?, status = ?, authentication_flow = ?, feature_flag_id = ?,"
            " body = ? WHERE tenant = 'default' AND id = ? AND revision = ?",
            (
                revision + 1,
                experiment["name"],
                experiment["status"],
                experiment["authentication_flow"],
                experiment["feature_flag_id"],
                after,
                id,
                revision,
            ),
        )
        execute("COMMIT")
        self.experiments[id] = (revision + 1, after)
        return after.encode()


if __name__ == "__main__":
    port, database, token = sys.argv[1:]
    uvicorn.run(
        Bare(database, token),
        port=int(port),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
