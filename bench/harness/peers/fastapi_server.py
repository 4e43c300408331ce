"""A plain FastAPI application that does the same work: bearer checked, body validated, bucket by SHA-256, token signed,
exposure queued and stored in groups.
"""

import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

Identifier = Annotated[str, Field(max_length=256)]


class Subjects(BaseModel):
    model_config = ConfigDict(extra="forbid")
    device: Identifier | None = None
    user: Identifier | None = None
    organization: Identifier | None = None


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")
    client_id: str | None = None
    user_agent: str | None = None
    country: str | None = None
    ip: str | None = None


class Resolve(BaseModel):
    model_config = ConfigDict(extra="forbid")
    flow: str
    subjects: Subjects
    transaction_id: Identifier | None = None
    request: Request | None = None


class Context(BaseModel):
    model_config = ConfigDict(extra="allow")
    targetingKey: Identifier


class Evaluate(BaseModel):
    context: Context


class Exposures:
    """Stored every 30 ms, a group a row."""

    def __init__(self, file: str) -> None:
        self.queue: list[dict[str, Any]] = []
        self.database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.execute("CREATE TABLE groups (id INTEGER PRIMARY KEY, body BLOB)")
        threading.Thread(target=self.keep_writing, daemon=True).start()

    def keep_writing(self) -> None:
        while True:
            time.sleep(0.03)
            group, self.queue = self.queue, []
            if group:
                self.database.execute("INSERT INTO groups (body) VALUES (?)", [json.dumps(group)])


def application(key: str, experiment: dict[str, Any], file: str) -> FastAPI:
    known = {hashlib.sha256(key.encode()).digest()}
    exposures = Exposures(file)
    app = FastAPI()

    def check(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
        if hashlib.sha256(bearer.credentials.encode()).digest() not in known:
            raise HTTPException(401)

    def assign(device: str, request: Request | Context | None) -> dict[str, Any]:
        digest = hashlib.sha256(f"{experiment['experiment']}:{device}".encode()).digest()
        position = (int.from_bytes(digest[:8]) * 10000) >> 64
        variation: dict[str, Any] = experiment["variations"][position >= experiment["variations"][0]["weight"] * 100]
        attributes = {} if request is None else request.model_dump(exclude_none=True, exclude={"user_agent", "ip"})
        exposure = {"at": time.time(), "device": device, "variation": variation["context"]["variation_id"]}
        exposures.queue.append(exposure | {"attributes": attributes})
        return variation

    def mac(text: str) -> str:
        return hmac.digest(key.encode(), text.encode(), "sha256").hex()[:32]

    @app.post("/runtime/v1/resolve", dependencies=[Depends(check)])
    async def resolve(asked: Resolve) -> dict[str, Any]:
        device = asked.subjects.device or ""
        variation = assign(device, asked.request)
        text = f"a2.{experiment['experiment']}.{variation['context']['variation_id']}...{int(time.time())}"
        return {
            "experiment": variation["context"],
            "reason": "split",
            "variation_name": variation["name"],
            "segment_id": None,
            "assignment_token": f"{text}.{mac(f'{text}.{device}')}",
            "served": experiment["served"],
            "warnings": [],
        }

    @app.post("/ofrep/v1/evaluate/flags/{name}/{parameter}", dependencies=[Depends(check)])
    async def evaluate(asked: Evaluate) -> dict[str, Any]:
        variation = assign(asked.context.targetingKey, asked.context)
        return {
            "key": variation["key"],
            "value": variation["value"],
            "reason": "SPLIT",
            "variant": variation["name"],
            "metadata": variation["metadata"],
        }

    return app


if __name__ == "__main__":
    port, key, file = sys.argv[1:]
    uvicorn.run(
        application(key, json.loads(os.environ["BENCH_EXPERIMENT"]), file),
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
