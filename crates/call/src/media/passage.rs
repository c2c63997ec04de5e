//! A browser's packets on their passage through its node.
//!
//! The browser's ICE (RFC 8445) is told addresses of its node; the node passes on what comes there over
//! its connection to the other end's node, and back. So a browser has the ways of its node, and all that
//! is between sees what it would see of any path: ICE, DTLS and SRTP are those of the two ends.
//!
//! The other end knows one address of the browser, while the browser may try several pairs. An answer
//! goes back by the pair that its question came by, all else by the one that the browser talks over, or knows to
//! work: what comes by a pair that is only being tried Chromium throws away, and the first packet of DTLS is
//! repeated no sooner than after a third of a second.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// A socket of ours, by its number, and the browser's address.
pub type Pair = (usize, SocketAddr);

/// Questions kept whose answers have not come.
const MOST_ASKED: usize = 64;
/// Where a STUN message has its transaction, and the bits that are set in an answer (RFC 8489, 5).
const TRANSACTION: std::ops::Range<usize> = 8..20;
const ANSWER: u8 = 0x01;
/// RFC 8445, 5.1.2.1: a host candidate's type preference, above everything that a browser might find.
const HOST: u32 = 126 << 24;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Passage {
    asked: VecDeque<(Vec<u8>, Pair)>,
    /// By which the browser asked last.
    tried: Option<Pair>,
    /// By which it was answered last.
    works: Option<Pair>,
    /// By which it sent something else last.
    talks: Option<Pair>,
}

impl Passage {
    /// The browser sent this by a pair; false if it is nothing that belongs to a call.
    pub fn from_browser(&mut self, pair: Pair, packet: &[u8]) -> bool {
        match packet.first() {
            // RFC 7983, 7.
            Some(first @ 0..=3) => {
                if first & ANSWER == 0
                    && let Some(id) = packet.get(TRANSACTION)
                {
                    if self.asked.len() >= MOST_ASKED {
                        self.asked.pop_front();
                    }
                    self.asked.push_back((id.to_vec(), pair));
                }
                self.tried = Some(pair);
                true
            }
            Some(20..=63 | 128..=191) => {
                self.talks = Some(pair);
                true
            }
            _ => false,
        }
    }

    /// By which pair what the other end sent goes to the browser; none if none is known.
    pub fn to_browser(&mut self, packet: &[u8]) -> Option<Pair> {
        if let Some(first @ 0..=3) = packet.first()
            && first & ANSWER != 0
            && let Some(id) = packet.get(TRANSACTION)
            && let Some(at) = self.asked.iter().position(|a| a.0 == id)
        {
            self.works = self.asked.remove(at).map(|a| a.1);
            return self.works;
        }
        self.talks.or(self.works).or(self.tried)
    }
}

/// A description (RFC 8839) with these host candidates instead of its own.
pub fn with_candidates(sdp: &str, at: &[SocketAddr]) -> String {
    let own = [
        "a=candidate:",
        "a=end-of-candidates",
        "a=remote-candidates:",
    ];
    let mut told = String::with_capacity(sdp.len() + 80 * at.len());
    let (mut parts, mut given) = (0, false);
    let give = |told: &mut String| {
        for (n, at) in (0u32..).zip(at) {
            let (ip, port, preference) = (at.ip(), at.port(), 65_535u32.saturating_sub(n) << 8);
            let priority = HOST + preference + 255;
            // Writing to a string cannot fail.
            let _ = write!(
                told,
                "a=candidate:{n} 1 udp {priority} {ip} {port} typ host\r\n"
            );
        }
        told.push_str("a=end-of-candidates\r\n");
    };
    for line in sdp.lines().map(str::trim_end) {
        if own.iter().any(|own| line.starts_with(own)) {
            continue;
        }
        if line.starts_with("m=") {
            parts += 1;
            // All of a call goes over the first part's path (RFC 8843).
            if parts == 2 {
                give(&mut told);
                given = true;
            }
        }
        told.push_str(line);
        told.push_str("\r\n");
    }
    if parts > 0 && !given {
        give(&mut told);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stun(kind: u8, transaction: u8) -> Vec<u8> {
        let mut message = vec![kind, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        message.extend([transaction; 12]);
        message
    }

    fn pair(n: u16) -> Pair {
        (usize::from(n), SocketAddr::from(([127, 0, 0, 1], n)))
    }

    #[test]
    fn answers_go_back_and_the_rest_where_the_browser_talks() {
        let mut passage = Passage::default();
        assert_eq!(passage.to_browser(&[128]), None);
        assert!(passage.from_browser(pair(1), &stun(0, 7)));
        assert!(passage.from_browser(pair(2), &stun(0, 8)));
        // A question of the other end before the browser knows of any pair that works, and after that.
        assert_eq!(passage.to_browser(&stun(0, 9)), Some(pair(2)));
        assert_eq!(passage.to_browser(&stun(1, 7)), Some(pair(1)));
        assert_eq!(passage.to_browser(&stun(0, 9)), Some(pair(1)));
        assert_eq!(passage.to_browser(&[22, 254, 253]), Some(pair(1)));
        assert!(passage.from_browser(pair(1), &[22, 254, 253]));
        assert!(passage.from_browser(pair(2), &stun(0, 10)));
        assert_eq!(passage.to_browser(&[128, 111]), Some(pair(1)));
        // An answer that nobody waits for any more.
        assert_eq!(passage.to_browser(&stun(1, 7)), Some(pair(1)));
        assert!(!passage.from_browser(pair(3), &[]) && !passage.from_browser(pair(3), &[70]));
    }

    #[test]
    fn questions_without_answers_are_forgotten() {
        let mut passage = Passage::default();
        for n in 0..200u8 {
            passage.from_browser(pair(u16::from(n)), &stun(0, n));
        }
        assert_eq!(passage.asked.len(), MOST_ASKED);
        assert_eq!(passage.to_browser(&stun(1, 199)), Some(pair(199)));
    }

    #[test]
    fn a_description_names_only_the_candidates_given() {
        let sdp = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=candidate:1 1 udp 5 192.0.2.1 7 typ host\r\n\
                   a=end-of-candidates\r\na=mid:0\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";
        let at = ["[100::1]:1".parse().expect("an address")];
        let told = with_candidates(sdp, &at);
        assert!(!told.contains("192.0.2.1"));
        let lines: Vec<_> = told.lines().collect();
        let place = |text: &str| lines.iter().position(|l| l.contains(text)).expect("there");
        assert!(place("100::1 1 typ host") < place("m=video"));
        assert!(place("100::1 1 typ host") > place("a=mid:0"));
        assert_eq!(told.matches("a=end-of-candidates").count(), 1);
        assert_eq!(with_candidates("v=0\r\n", &at), "v=0\r\n");
    }
}
