"""A libtorrent client as a process: one torrent, JSON lines on stdout. Run by the driver."""

import argparse
import json
import sys
import time

import libtorrent as lt


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what")
    p.add_argument("--dir", required=True)
    p.add_argument("--listen", required=True)
    p.add_argument("--peer", action="append", default=[])
    p.add_argument("--tracker", action="append", default=[])
    p.add_argument("--up-limit", type=int, default=0)
    p.add_argument("--down-limit", type=int, default=0)
    p.add_argument("--stay", action="store_true")
    p.add_argument("--assume-complete", action="store_true")
    p.add_argument("--trace", action="store_true", help="log the peer protocol to stderr")
    p.add_argument("--setting", action="append", default=[], metavar="NAME=JSON")
    args = p.parse_args()

    settings = {
        "listen_interfaces": args.listen,
        "outgoing_interfaces": args.listen.rsplit(":", 1)[0],
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True,
        "alert_mask": lt.alert.category_t.error_notification | lt.alert.category_t.status_notification,
    }
    if args.trace:
        settings["alert_mask"] = lt.alert.category_t.all_categories
    for pair in args.setting:
        name, value = pair.split("=", 1)
        settings[name] = json.loads(value)
    session = lt.session(settings)

    if args.what.startswith("magnet:"):
        params = lt.parse_magnet_uri(args.what)
    else:
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(args.what)
    params.save_path = args.dir
    if args.assume_complete:
        params.flags |= lt.torrent_flags.seed_mode
    params.flags &= ~lt.torrent_flags.auto_managed
    params.flags &= ~lt.torrent_flags.paused
    if args.tracker:
        params.trackers = list(params.trackers) + args.tracker
    handle = session.add_torrent(params)
    if args.up_limit:
        handle.set_upload_limit(args.up_limit)
    if args.down_limit:
        handle.set_download_limit(args.down_limit)

    def say(event, **fields):
        print(json.dumps({"event": event, "t": time.monotonic(), **fields}), flush=True)

    wanted = [(a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])) for a in args.peer]
    dialled, complete, last = 0.0, False, 0.0
    while True:
        session.wait_for_alert(50 if not complete or args.trace else 200)
        for alert in session.pop_alerts():
            if args.trace:
                print(type(alert).__name__, alert, file=sys.stderr, flush=True)
            elif alert.category() & lt.alert.category_t.error_notification:
                print(alert, file=sys.stderr, flush=True)
        status = handle.status()
        now = time.monotonic()
        checking = status.state in (lt.torrent_status.checking_files, lt.torrent_status.checking_resume_data)
        if wanted and not checking and now - dialled > 3 and status.num_peers < len(wanted):
            for peer in wanted:
                handle.connect_peer(peer)
            dialled = now
        if not complete and status.is_seeding:
            complete = True
            say("complete")
            if not args.stay:
                break
        if now - last > 0.25:
            last = now
            peers = [
                {"ip": "%s:%d" % peer.ip, "client": repr(peer.client), "down": peer.total_download, "up": peer.total_upload}
                for peer in handle.get_peer_info()
            ]
            say(
                "progress",
                bytes_done=status.total_done,
                downloaded=status.total_payload_download,
                uploaded=status.total_payload_upload,
                peers=peers,
                checking=checking,
                seeding=status.is_seeding,
            )


main()
