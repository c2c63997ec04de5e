//! What other programs make of torrents, and we of theirs.

mod fixtures;
mod libtorrent;
