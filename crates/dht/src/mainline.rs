//! Kademlia as the public BitTorrent DHT speaks it (BEP 5 and its extensions).
