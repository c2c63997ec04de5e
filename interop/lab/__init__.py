"""The laboratory: real clients as processes in a network of their own, and what watches them.

`net` makes the network, `process` starts and ends programs, `torrent` makes payloads and
.torrent files, `tracker` is a tracker that answers what a test wants, `usage` measures, and
`clients` drives each BitTorrent program. Standard library only.
"""
