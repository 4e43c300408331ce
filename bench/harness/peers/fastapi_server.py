"""A plain FastAPI application that does the same work: bearer checked, body validated, SHA-256, exposure queued."""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections import deque
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


def application(key: str, experiment: dict[str, Any]) -> FastAPI:
    known = {hashlib.sha256(key.encode()).digest()}
    queue: deque[Any] = deque(maxlen=1000)
    app = FastAPI()

    def check(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
        if hashlib.sha256(bearer.credentials.encode()).digest() not in known:
            raise HTTPException(401)

    def assign(device: str) -> dict[str, Any]:
        digest = hashlib.sha256(f"{experiment['experiment']}:{device}".encode()).digest()
        position = (int.from_bytes(digest[:8]) * 10000) >> 64
        variation: dict[str, Any] = experiment["variations"][position >= experiment["variations"][0]["weight"] * 100]
        queue.append((time.time(), device, variation))
        return variation

    def mac(text: str) -> str:
        return base64.urlsafe_b64encode(hmac.digest(key.encode(), text.encode(), "sha256")).rstrip(b"=").decode()

    @app.post("/runtime/v1/resolve", dependencies=[Depends(check)])
    async def resolve(asked: Resolve) -> dict[str, Any]:
        device = asked.subjects.device or ""
        variation = assign(device)
        subject = mac(f"s1.{experiment['experiment']}.{device}")[:22]
        text = f"a1.{experiment['experiment']}.{variation['context']['variation_id']}...{subject}.{int(time.time())}"
        return {
            "experiment": variation["context"],
            "reason": "split",
            "variation_name": variation["name"],
            "segment_id": None,
            "assignment_token": f"{text}.{mac(text)}",
            "served": experiment["served"],
            "warnings": [],
        }

    @app.post("/ofrep/v1/evaluate/flags/{name}/{parameter}", dependencies=[Depends(check)])
    async def evaluate(asked: Evaluate) -> dict[str, Any]:
        variation = assign(asked.context.targetingKey)
        return {
            "key": variation["key"],
            "value": variation["value"],
            "reason": "SPLIT",
            "variant": variation["name"],
            "metadata": variation["metadata"],
        }

    return app


if __name__ == "__main__":
    port, key = sys.argv[1:]
    uvicorn.run(
        application(key, json.loads(os.environ["BENCH_EXPERIMENT"])),
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
