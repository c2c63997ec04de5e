"""Drivers: one module for each program, all with the shape of `base.Client`."""

from .aria2 import Aria2
from .libtorrent import Libtorrent
from .qbittorrent import Qbittorrent
from .rqbit import Rqbit
from .shoal import Shoal
from .transmission import Transmission

DEBIAN = [Libtorrent, Transmission, Aria2, Qbittorrent]
OTHERS = [*DEBIAN, Rqbit]
ALL = [Shoal, *OTHERS]
BY_NAME = {client.name: client for client in ALL}
