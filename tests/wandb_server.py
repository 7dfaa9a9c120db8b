"""As much of a W&B server as a run's start and a workspace ask for, on a loopback port."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = {"id": "QQ==", "displayName": "x", "config": "{}", "historyLineCount": 0}
BUCKET["project"] = {"id": "UA==", "name": "p", "entity": {"id": "RQ==", "name": "me"}}
ANSWERS = {
    "viewer": {"viewer": {"id": "VQ==", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}},
    "createArtifact(": {"createArtifact": {"artifact": {"id": "QQ==", "state": "PENDING", "artifactSequence": {}}}},
    "upsertView": {"upsertView": {"view": {"id": "Vg==", "name": "view"}, "inserted": True}},
}


class Server:
    """Answers until it is stopped; `asked` are the GraphQL requests so far.

    Args:
        last: a word; the request whose query has it gets no answer, nor does any after it.
    """

    def __init__(self, last: str | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.last, self.gone = last, threading.Event()

    def __enter__(self) -> Server:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def variables(self, word: str) -> list[dict[str, Any]]:
        """Of the requests whose query has a word."""
        return [request.get("variables", {}) for request in self.asked if word in request["query"]]

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        query = request["query"]
        if "upsertBucket" in query:
            bucket = BUCKET | {"name": request["variables"]["name"]}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        return next((answer for word, answer in ANSWERS.items() if word in query), {"model": None, "project": None})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
                if server.last and server.last in body.get("query", ""):
                    server.gone.set()
                if server.gone.is_set():
                    self.close_connection = True
                    return
                answer = json.dumps({"data": server._answer(body)} if "query" in body else {}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
