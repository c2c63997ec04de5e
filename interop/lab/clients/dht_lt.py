"""Several libtorrent DHT nodes in one process, driven by JSON lines over TCP. Run by `lab.dht`.

`{"node": N, "do": "put"|"get"|"announce"|"peers", …}` is answered by one line with what came of it
and how long it took.
"""

import argparse
import hashlib
import json
import socketserver
import threading
import time

import libtorrent as lt

# RFC 8032, section 7.1, test 1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def expanded(seed):
    """The private key in the form that libtorrent takes: the hash of the seed, clamped."""
    key = bytearray(hashlib.sha512(seed).digest())
    key[0] &= 248
    key[31] = key[31] & 63 | 64
    return bytes(key)


def node(listen, bootstrap):
    return lt.session(
        {
            "listen_interfaces": listen,
            "enable_dht": True,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "dht_bootstrap_nodes": bootstrap,
            # All of the laboratory's nodes share a subnet.
            "dht_restrict_routing_ips": False,
            "dht_restrict_search_ips": False,
            "dht_upload_rate_limit": 1000000,
            "dht_block_ratelimit": 1000000,
            "alert_mask": lt.alert.category_t.dht_notification | lt.alert.category_t.dht_operation_notification | lt.alert.category_t.error_notification,
        }
    )


def wait(session, kinds, seconds, wanted=lambda alert: True):
    """What `wanted` makes of the first alert of these kinds that it likes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            if isinstance(alert, kinds):
                value = wanted(alert)
                if value:
                    return value
    return None


def raw(value):
    return value.encode() if isinstance(value, str) else bytes(value)


def text(item):
    value = item["value"] if isinstance(item, dict) and "value" in item else item
    return value.decode() if isinstance(value, bytes) else value


def do(session, order):
    seconds, what = order.get("seconds", 10), order["do"]
    salt = order.get("salt", "").encode()
    if what == "nodes":
        return {"nodes": session.status().dht_nodes}
    if what == "put" and not order.get("mutable"):
        target = session.dht_put_immutable_item(order["value"])
        stored = wait(session, lt.dht_put_alert, seconds, lambda a: a.num_success)
        return {"name": str(target), "stored": stored or 0}
    if what == "put":
        session.dht_put_mutable_item(expanded(SEED), PUBLIC, order["value"].encode(), salt)
        # The alert of an earlier put may still lie about.
        stored = wait(session, lt.dht_put_alert, seconds, lambda a: raw(a.salt) == salt and raw(a.public_key) == PUBLIC and a.num_success)
        return {"name": PUBLIC.hex(), "stored": stored or 0}
    if what == "get" and len(order["name"]) == 40:
        session.dht_get_immutable_item(lt.sha1_hash(bytes.fromhex(order["name"])))
        return {"value": wait(session, lt.dht_immutable_item_alert, seconds, lambda a: text(a.item))}
    if what == "get":
        session.dht_get_mutable_item(bytes.fromhex(order["name"]), salt)
        return {"value": wait(session, lt.dht_mutable_item_alert, seconds, lambda a: text(a.item))}
    key = lt.sha1_hash(bytes.fromhex(order["key"]))
    if what == "announce":
        # The binding cannot call dht_announce; a torrent announces the port its session listens on.
        params = lt.add_torrent_params()
        params.info_hash = key
        params.save_path = "/nonexistent"
        params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        session.add_torrent(params).force_dht_announce()
        # It tells nothing of how that ends.
        time.sleep(order.get("settle", 2))
        return {"port": session.listen_port()}
    if what == "peers":
        session.dht_get_peers(key)
        found = wait(session, lt.dht_get_peers_reply_alert, seconds, lambda a: a.info_hash == key and a.peers())
        return {"peers": sorted(f"{ip}:{port}" for ip, port in found or [])}
    return {"error": f"cannot {what}"}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--control", type=int, required=True)
    p.add_argument("--bootstrap", required=True)
    p.add_argument("listen", nargs="+")
    args = p.parse_args()
    sessions = [node(listen, args.bootstrap) for listen in args.listen]
    # libtorrent keeps nodes to start from out of its table, so that a network that starts from one
    # of its own nodes does not form.
    for n, session in enumerate(sessions if args.bootstrap == args.listen[0] else []):
        for k in (1, 2, 4, 8, 16, 32):
            ip, port = args.listen[(n + k) % len(args.listen)].split(":")
            session.add_dht_node((ip, int(port)))
    lock = threading.Lock()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                order = json.loads(line)
                with lock:
                    session = sessions[order.get("node", 0)]
                    # What earlier orders left behind.
                    session.pop_alerts()
                    start = time.monotonic()
                    answer = do(session, order)
                    answer["ms"] = (time.monotonic() - start) * 1e3
                self.wfile.write(json.dumps(answer).encode() + b"\n")

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(("127.0.0.1", args.control), Handler).serve_forever()


main()
