"""A job queue with a web front: `POST /jobs` adds one, `GET /jobs/7` says how it is, `DELETE /jobs/7` calls it off.

The nodes: `raftkv serve --machine raftkv.recipes:Queues …`
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from raftkv import BlockingClient
from raftkv.recipes import BlockingQueues, BlockingWork, Queues


def shout(work: BlockingWork) -> str:
    """The work itself."""
    if not work.data:
        raise ValueError("nothing to shout")
    return work.data.upper()


def front(client: BlockingClient[Queues], port: int) -> ThreadingHTTPServer:
    """The web server, to be started with `serve_forever`."""
    queues, remote = BlockingQueues(client), client.remote

    class Front(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.answer({"job": queues.put("shout", body, attempts=2, backoff_s=0.2)}, 201)

        def do_GET(self) -> None:
            seen = remote.look(self.number())
            self.answer({"error": "no such job"} if seen is None else msgspec.to_builtins(seen), 200 if seen else 404)

        def do_DELETE(self) -> None:
            self.answer({"removed": remote.remove(self.number())})

        def number(self) -> int:
            return int(self.path.rpartition("/")[2])

        def answer(self, body: object, status: int = 200) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Front)


def main(port: str, *addresses: str) -> None:
    """Serve, and work in two threads."""
    client = BlockingClient(Queues, addresses)
    for _ in range(2):
        threading.Thread(target=BlockingQueues(client).run, args=("shout", shout), daemon=True).start()
    front(client, int(port)).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
