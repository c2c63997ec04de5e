"""A small HTTP tracker for tests: remembers who announced, or always names the same peers."""

import http.server
import socket
import socketserver
import struct
import threading
import urllib.parse

from . import bencode, net


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Clients hang up on the answer to "stopped"; that is no news.
    handle_error = staticmethod(lambda *_: None)
    # http.server would ask a resolver for its own name.
    server_bind = socketserver.TCPServer.server_bind


class Tracker:
    """Serves `/announce` on its own address until closed.

    With `fixed` peers it answers those and nothing else: that is how programs without an
    "add peer" command are told of one.
    """

    def __init__(self, lab, fixed=None, interval=5):
        self.fixed = fixed
        self.interval = interval
        self.swarms = {}
        self.announces = []
        self._lock = threading.Lock()
        tracker = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = bencode.encode(tracker.answer(self.path, self.client_address[0]))
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.close_connection = True
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        ip = net.address()
        self.server = _Server((ip, 0), Handler)
        self.url = f"http://{ip}:{self.server.server_address[1]}/announce"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        lab.at_close(self.close)

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path, ip):
        query = urllib.parse.urlsplit(path).query
        fields = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair)
        info_hash = urllib.parse.unquote_to_bytes(fields.get("info_hash", ""))
        port = int(fields.get("port", "0"))
        with self._lock:
            self.announces.append({**fields, "info_hash": info_hash, "ip": ip})
            swarm = self.swarms.setdefault(info_hash, {})
            if fields.get("event") == "stopped":
                swarm.pop((ip, port), None)
            else:
                swarm[(ip, port)] = fields.get("left") == "0"
            peers = self.fixed if self.fixed is not None else [p for p in swarm if p != (ip, port)]
        packed = b"".join(socket.inet_aton(a) + struct.pack(">H", p) for a, p in peers)
        seeds = sum(swarm.values())
        return {"interval": self.interval, "min interval": 1, "complete": seeds, "incomplete": len(swarm) - seeds, "peers": packed}
