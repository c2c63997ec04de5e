//! Napster on sockets: a hub ([`HubServer`]), and the client's side of files and transfers.
//!
//! The rules are those of `shoal_napster`.

mod browse;
mod download;
mod hub_desk;
mod keeper;
mod password;
mod port;
mod server;
mod session;
mod stream_source;

pub use browse::browse;
pub use download::{DownloadError, download, local_name};
pub(crate) use hub_desk::HubDesk;
pub use port::{DataPort, Entrance, Offer, Offers, Upload};
pub(crate) use port::{prepare, read_request};
pub(crate) use server::listen;
pub use server::{HubError, HubServer, HubSettings};
pub use session::{Session, SessionError};
pub(crate) use stream_source::StreamSource;
