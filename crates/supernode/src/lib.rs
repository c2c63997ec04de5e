//! The hierarchical overlay, as KaZaA had it: ordinary peers are children of supernodes, which hold
//! what their children share and flood queries among themselves.
//!
//! No sockets, no clock and no files: what drives it is in the node.
