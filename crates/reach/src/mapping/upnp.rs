//! The texts of UPnP: searching a router (UPnP Device Architecture 1.1, section 1.3), what it says of itself, and
//! what it is asked for (`WANIPConnection:2`, `WANPPPConnection:1`).
//!
//! Whoever is in the network may answer a search: only what a router says of services at its own address counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::{Port, Refusal, Transport};

/// Where routers listen for searches.
pub const SEARCH: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// Bytes of a document of a router's at most.
pub const MAX_DOCUMENT: u64 = 256 << 10;
/// Services that can map ports, the best first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
/// Elements of a document that are looked at, at most.
const MAX_ELEMENTS: u32 = 4000;

/// Who is looked for: a search of each is sent.
pub const TARGETS: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// A search.
pub fn search(target: &str) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {SEARCH}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
    )
}

/// Where on a router something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its address and port.
    pub at: SocketAddr,
    /// The path, from its `/` on.
    pub path: String,
}

impl Place {
    /// Reads a URL; only plain HTTP at the router's own address will do.
    fn parse(url: &str, router: IpAddr) -> Option<Self> {
        let scheme = url.get(..7).filter(|s| s.eq_ignore_ascii_case("http://"))?;
        let rest = url.get(scheme.len()..)?;
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let at: SocketAddr = match host.parse() {
            Ok(at) => at,
            Err(_) => SocketAddr::new(host.parse().ok()?, 80),
        };
        let plain = path.bytes().all(|b| b.is_ascii_graphic());
        (at.ip() == router && at.port() != 0 && plain).then(|| Self {
            at,
            path: path.to_owned(),
        })
    }

    /// It as a URL.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.at, self.path)
    }
}

/// Where a router that answered a search describes itself, if it answers for itself.
pub fn location(answer: &[u8], router: IpAddr) -> Option<Place> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut lines = text.lines();
    let status = lines.next()?;
    if !status.starts_with("HTTP/1.") || status.split(' ').nth(1) != Some("200") {
        return None;
    }
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("location")
            .then(|| value.trim().to_owned())
    };
    Place::parse(&lines.find_map(field)?, router)
}

/// A service that maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Where it is asked.
    pub at: Place,
    /// Which it is.
    pub kind: &'static str,
}

fn parse(document: &str) -> Option<roxmltree::Document<'_>> {
    let options = roxmltree::ParsingOptions {
        nodes_limit: MAX_ELEMENTS,
        ..Default::default()
    };
    roxmltree::Document::parse_with_options(document, options).ok()
}

/// The best service of what a router says of itself at `place`.
pub fn service(document: &str, place: &Place) -> Option<Service> {
    let document = parse(document)?;
    let named = |node: roxmltree::Node<'_, '_>, name: &str| {
        let child = node.children().find(|c| c.tag_name().name() == name)?;
        child.text().map(|t| t.trim().to_owned())
    };
    let base = document
        .descendants()
        .find(|n| n.tag_name().name() == "URLBase")
        .and_then(|n| n.text());
    for kind in SERVICES {
        let of_kind = document.descendants().filter(|n| {
            n.tag_name().name() == "service" && named(*n, "serviceType").as_deref() == Some(kind)
        });
        for node in of_kind {
            let Some(url) = named(node, "controlURL") else {
                continue;
            };
            let whole = match base.map(str::trim).filter(|b| !b.is_empty()) {
                _ if url.contains("://") => url,
                Some(base) => format!(
                    "{}/{}",
                    base.trim_end_matches('/'),
                    url.trim_start_matches('/')
                ),
                None => format!("http://{}/{}", place.at, url.trim_start_matches('/')),
            };
            if let Some(at) = Place::parse(&whole, place.at.ip()) {
                return Some(Service { at, kind });
            }
        }
    }
    None
}

/// What a service is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The router's address towards the world.
    Address,
    /// Let this port of the router's through to that of ours, for so long; none: until it is ended.
    Map(u16, Port, Ipv4Addr, Duration),
    /// Let it through no more.
    End(u16, Transport),
}

const fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    }
}

impl Action {
    const fn name(&self) -> &'static str {
        match self {
            Self::Address => "GetExternalIPAddress",
            Self::Map(..) => "AddPortMapping",
            Self::End(..) => "DeletePortMapping",
        }
    }

    /// The header `SOAPAction` of a request.
    pub fn header(&self, kind: &str) -> String {
        format!("\"{kind}#{}\"", self.name())
    }

    /// The body of a request.
    pub fn body(&self, kind: &str) -> String {
        let mut arguments = String::new();
        let mut add = |name: &str, value: &str| {
            // Writing into a string cannot fail.
            let _ = write!(arguments, "<{name}>{value}</{name}>");
        };
        match self {
            Self::Address => {}
            Self::Map(external, port, own, lifetime) => {
                add("NewRemoteHost", "");
                add("NewExternalPort", &external.to_string());
                add("NewProtocol", word(port.transport));
                add("NewInternalPort", &port.number.to_string());
                add("NewInternalClient", &own.to_string());
                add("NewEnabled", "1");
                add("NewPortMappingDescription", "shoal");
                add("NewLeaseDuration", &lifetime.as_secs().to_string());
            }
            Self::End(external, transport) => {
                add("NewRemoteHost", "");
                add("NewExternalPort", &external.to_string());
                add("NewProtocol", word(*transport));
            }
        }
        let name = self.name();
        format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{name} xmlns:u=\"{kind}\">\
             {arguments}</u:{name}></s:Body></s:Envelope>\r\n"
        )
    }
}

/// Why a service does not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another has the port (718), or it is not to be had (726 and like): another port may do.
    Taken,
    /// It maps for ever alone (725).
    Permanent,
    /// It refuses.
    Refused(Refusal),
    /// What it says is no answer.
    Nonsense,
}

/// The values of an answer, by their names.
///
/// # Errors
/// Why not.
pub fn values(document: &str) -> Result<BTreeMap<String, String>, Fault> {
    let document = parse(document).ok_or(Fault::Nonsense)?;
    let mut found = BTreeMap::new();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        if let Some(text) = node.text().map(str::trim).filter(|t| !t.is_empty()) {
            found.insert(node.tag_name().name().to_owned(), text.to_owned());
        }
    }
    let Some(code) = found.get("errorCode") else {
        return Ok(found);
    };
    Err(match code.parse() {
        Ok(718 | 724 | 726 | 727 | 729) => Fault::Taken,
        Ok(725) => Fault::Permanent,
        Ok(606) => Fault::Refused(Refusal::NotAuthorized),
        Ok(728) => Fault::Refused(Refusal::NoResources),
        Ok(code) => Fault::Refused(Refusal::Code(super::Protocol::Upnp, code)),
        Err(_) => Fault::Nonsense,
    })
}

/// The address of an answer to [`Action::Address`].
pub fn address(values: &BTreeMap<String, String>) -> Option<Ipv4Addr> {
    values.get("NewExternalIPAddress")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));

    fn place(path: &str) -> Place {
        Place {
            at: SocketAddr::new(ROUTER, 5000),
            path: path.into(),
        }
    }

    #[test]
    fn a_router_speaks_for_itself_alone() {
        let answer = |location: &str| {
            format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {location}\r\n\r\n").into_bytes()
        };
        let own = location(&answer("http://192.168.1.1:5000/rootDesc.xml"), ROUTER);
        assert_eq!(own, Some(place("/rootDesc.xml")));
        for other in [
            "http://192.168.1.7:5000/rootDesc.xml",
            "https://192.168.1.1:5000/rootDesc.xml",
            "http://router.example/rootDesc.xml",
            "http://192.168.1.1@198.51.100.7/x",
            "http://192.168.1.1:0/x",
            "file:///etc/passwd",
            "",
        ] {
            assert_eq!(location(&answer(other), ROUTER), None, "{other}");
        }
        assert_eq!(
            location(
                b"NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n",
                ROUTER
            ),
            None
        );
    }

    #[test]
    fn the_best_service_is_found() {
        let document = |base: &str, url: &str| {
            format!(
                "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">{base}<device>\
                 <serviceList><service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1\
                 </serviceType><controlURL>/ppp</controlURL></service></serviceList><deviceList><device>\
                 <serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1\
                 </serviceType><controlURL>{url}</controlURL></service></serviceList></device></deviceList>\
                 </device></root>"
            )
        };
        let at = place("/rootDesc.xml");
        let found = service(&document("", "/ctl/IPConn"), &at).expect("a service");
        assert_eq!(
            (found.kind, &found.at),
            (SERVICES[1], &place("/ctl/IPConn"))
        );
        let base = "<URLBase>http://192.168.1.1:5000/</URLBase>";
        let found = service(&document(base, "ctl"), &at).expect("a service");
        assert_eq!(found.at, place("/ctl"));
        // Elsewhere it is not asked: the next best is.
        let found = service(&document("", "http://198.51.100.7/ctl"), &at).expect("a service");
        assert_eq!((found.kind, &found.at), (SERVICES[2], &place("/ppp")));
        assert_eq!(service("<root/>", &at), None);
    }

    #[test]
    fn requests_and_answers() {
        let port = Port {
            transport: Transport::Udp,
            number: 4000,
        };
        let own = Ipv4Addr::new(192, 168, 1, 2);
        let map = Action::Map(4001, port, own, Duration::from_secs(7200));
        assert_eq!(
            map.header(SERVICES[1]),
            format!("\"{}#AddPortMapping\"", SERVICES[1])
        );
        let said = values(&map.body(SERVICES[1])).expect("values");
        let value = |name: &str| said.get(name).map(String::as_str);
        assert_eq!(value("NewExternalPort"), Some("4001"));
        assert_eq!(value("NewInternalPort"), Some("4000"));
        assert_eq!(value("NewInternalClient"), Some("192.168.1.2"));
        assert_eq!(value("NewProtocol"), Some("UDP"));
        assert_eq!(value("NewLeaseDuration"), Some("7200"));
        let answer = "<s:Envelope xmlns:s=\"x\"><s:Body><NewExternalIPAddress>44.20.1.1</NewExternalIPAddress></s:Body></s:Envelope>";
        let found = address(&values(answer).expect("values"));
        assert_eq!(found, Some(Ipv4Addr::new(44, 20, 1, 1)));
        let fault = |code: &str| values(&format!("<a><errorCode>{code}</errorCode></a>"));
        assert_eq!(fault("718"), Err(Fault::Taken));
        assert_eq!(fault("725"), Err(Fault::Permanent));
        assert_eq!(fault("606"), Err(Fault::Refused(Refusal::NotAuthorized)));
        assert_eq!(fault("what"), Err(Fault::Nonsense));
        assert_eq!(values("<a"), Err(Fault::Nonsense));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in any::<String>()) {
            let _ = (location(text.as_bytes(), ROUTER), values(&text));
            if let Some(found) = service(&text, &place("/")) {
                assert_eq!(found.at.at.ip(), ROUTER);
            }
        }
    }
}
