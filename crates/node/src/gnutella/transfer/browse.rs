//! Browsing a host: all that it shares, as query hits over HTTP (Browse Host 1.0).

use std::net::SocketAddr;
use std::time::Duration;

use shoal_gnutella::message::hit::Hit;
use shoal_gnutella::message::{Kind, Reader};
use shoal_gnutella::node::{Answer, FoundFile};

use crate::http;
use crate::outbound::Outbound;

/// Bytes of an answer that are read at most.
const MAX_BROWSED: u64 = 64 << 20;
/// How long a host may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// It does not let others browse.
    #[error("the host answers {0}")]
    Refused(u16),
    /// It cannot be reached, or its answer breaks off.
    #[error("{0}")]
    Http(String),
    /// What it sent are no messages.
    #[error("the host sends no query hits")]
    Nonsense,
}

/// Asks a host for all that it shares; `outbound` connects to it.
///
/// # Errors
/// [`BrowseError`].
pub fn browse(host: SocketAddr, outbound: Outbound) -> Result<Vec<Answer>, BrowseError> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .http_status_as_error(false)
        .accept_encoding("identity")
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .proxy(None)
        .build();
    let agent = http::agent(config, outbound);
    let request = agent.get(format!("http://{host}/"));
    let asked = request.header("Accept", "application/x-gnutella-packets");
    let failed = |e: ureq::Error| BrowseError::Http(e.to_string());
    let mut answer = asked.call().map_err(failed)?;
    if answer.status() != 200 {
        return Err(BrowseError::Refused(answer.status().as_u16()));
    }
    let body = answer.body_mut().with_config().limit(MAX_BROWSED);
    read(&body.read_to_vec().map_err(failed)?)
}

/// Reads messages one after another; what is no hit is passed over.
fn read(bytes: &[u8]) -> Result<Vec<Answer>, BrowseError> {
    let mut reader = Reader::default();
    reader.push(bytes);
    let mut answers = Vec::new();
    while let Some((header, payload)) = reader.message().map_err(|_| BrowseError::Nonsense)? {
        if header.known() != Some(Kind::Hit) {
            continue;
        }
        let hit = Hit::read(payload).map_err(|_| BrowseError::Nonsense)?;
        let files = hit.results.iter().map(FoundFile::of).collect();
        answers.push(Answer::of(hit, 0, files));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_and_nothing_is_nothing() {
        assert!(matches!(read(&[0xff; 200]), Err(BrowseError::Nonsense)));
        assert!(read(&[]).expect("nothing").is_empty());
    }
}
