//! A server's driver and its users, without a socket.

use super::*;

pub(super) const ALICE: &str = "198.18.1.1:1000";
pub(super) const BOB: &str = "198.18.1.2:2000";
pub(super) const PEER: &str = "8.8.4.4:4444";
pub(super) const OTHER_PEER: &str = "8.8.4.4:5555";
pub(super) const SECRET: &[u8] = b"north";
pub(super) const UNIX: u64 = 1_700_000_000;

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn config() -> Config {
    let v4 = "5.5.5.5".parse().unwrap();
    let v6 = "2600::5".parse().unwrap();
    Config {
        credentials: Credentials {
            secrets: vec![SECRET.to_vec()],
            users: [(b"carol".to_vec(), b"pw".to_vec())].into(),
        },
        relay_v4: Some(RelayAddress {
            bind: v4,
            public: v4,
        }),
        relay_v6: Some(RelayAddress {
            bind: v6,
            public: v6,
        }),
        unix_at_zero: UNIX,
        ..Config::default()
    }
}

/// The driver's part, with all its sockets in a list.
pub(super) struct World {
    pub(super) server: TurnServer,
    pub(super) now: Time,
    pub(super) open: Vec<(RelayId, SocketAddr)>,
    /// Ports that are somebody else's.
    pub(super) taken: fn(u16) -> bool,
    pub(super) replies: Vec<(Client, Vec<u8>)>,
    pub(super) next_id: u32,
}

/// A client's side of the credentials.
#[derive(Clone)]
pub(super) struct User {
    pub(super) at: SocketAddr,
    pub(super) stream: bool,
    pub(super) name: String,
    pub(super) password: String,
    pub(super) nonce: Vec<u8>,
    pub(super) sha256: bool,
}

impl User {
    pub(super) fn new(at: &str, name: &str) -> Self {
        let credential = Credential::short_lived(SECRET, name, UNIX + 1000);
        Self {
            at: address(at),
            stream: false,
            name: credential.name,
            password: credential.password,
            nonce: Vec::new(),
            sha256: false,
        }
    }

    pub(super) fn client(&self) -> Client {
        if self.stream {
            Client::Stream(u64::from(self.at.port()))
        } else {
            Client::Udp(0, self.at)
        }
    }
}

/// A response taken apart: its code (0 for success) and attributes' bytes.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn message(&self) -> Message<'_> {
        Message::decode(&self.bytes).unwrap()
    }

    pub(super) fn get(&self, kind: u16) -> Option<Attribute<'_>> {
        self.message().get(kind).map(Result::unwrap)
    }

    pub(super) fn relayed(&self) -> SocketAddr {
        match self.get(kind::XOR_RELAYED_ADDRESS) {
            Some(Attribute::XorRelayedAddress(a)) => a,
            other => panic!("no relayed address but {other:?}"),
        }
    }
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        Self {
            server: TurnServer::new(config, &mut Rng::from_seed(1)),
            now: Time::from_secs(10),
            open: Vec::new(),
            taken: |_| false,
            replies: Vec::new(),
            next_id: 0,
        }
    }

    /// Does what the server wants, until it wants nothing more.
    pub(super) fn settle(&mut self, mut out: Effects) {
        loop {
            let (list, bytes) = (
                std::mem::take(&mut out.list),
                std::mem::take(&mut out.bytes),
            );
            if list.is_empty() {
                return;
            }
            for effect in list {
                match effect {
                    Effect::Reply(to, range) => self.replies.push((to, bytes[range].to_vec())),
                    Effect::OpenRelay(relay, at) => {
                        let used = self.open.iter().any(|(_, a)| *a == at);
                        let bound = (!used && !(self.taken)(at.port())).then_some(at);
                        self.open.extend(bound.map(|at| (relay, at)));
                        self.server.on_relay(self.now, relay, bound, &mut out);
                    }
                    Effect::CloseRelay(relay) => {
                        let before = self.open.len();
                        self.open.retain(|(id, _)| *id != relay);
                        assert_eq!(self.open.len() + 1, before, "only what is open is closed");
                    }
                }
            }
        }
    }

    /// Something from a client; what goes to a peer.
    pub(super) fn client_says(
        &mut self,
        client: Client,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut out = Effects::default();
        let frame = datagram_frame(bytes)?;
        let sent = self
            .server
            .on_client(self.now, client, from, frame, &mut out);
        let sent = sent.map(|p| {
            let relay = self.open.iter().find(|(id, _)| *id == p.relay);
            let relay = relay.expect("data leaves by an open socket");
            (relay.1, p.to, p.data.to_vec())
        });
        self.settle(out);
        sent
    }

    /// Something from a peer to a relayed address; what goes to a client.
    pub(super) fn peer_says(
        &mut self,
        relayed: SocketAddr,
        from: SocketAddr,
        data: &[u8],
    ) -> Option<(Client, Vec<u8>)> {
        let (relay, _) = *self.open.iter().find(|(_, a)| *a == relayed)?;
        let mut buffer = vec![0xee; HEADROOM + data.len() + TAILROOM];
        let range = HEADROOM..HEADROOM + data.len();
        buffer[range.clone()].copy_from_slice(data);
        let sent = self
            .server
            .on_peer(self.now, relay, from, &mut buffer, range)?;
        Some((sent.client, buffer[sent.bytes].to_vec()))
    }

    pub(super) fn id(&mut self) -> TransactionId {
        self.next_id += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.next_id.to_be_bytes());
        TransactionId(id)
    }

    /// A request with credentials and its answer, without the challenge.
    pub(super) fn ask_once(
        &mut self,
        user: &User,
        id: TransactionId,
        method: Method,
        attributes: &[Attribute<'_>],
    ) -> Option<Answer> {
        let mut bytes = Vec::new();
        let mut builder = Builder::new(&mut bytes, Class::Request, method, id);
        for attribute in attributes {
            builder.put(attribute);
        }
        if !user.nonce.is_empty() {
            builder
                .put(&Attribute::Username(user.name.as_bytes()))
                .put(&Attribute::Realm(b"shoal"))
                .put(&Attribute::Nonce(&user.nonce));
            let (name, password) = (user.name.as_bytes(), user.password.as_bytes());
            if user.sha256 {
                let key = Key::long_term(Algorithm::Sha256, name, b"shoal", password);
                builder
                    .put(&Attribute::PasswordAlgorithms(&[0, 2, 0, 0, 0, 1, 0, 0]))
                    .put(&Attribute::PasswordAlgorithm(2))
                    .integrity_sha256(&key);
            } else {
                builder.integrity(&Key::long_term(Algorithm::Md5, name, b"shoal", password));
            }
        }
        self.replies.clear();
        assert_eq!(self.client_says(user.client(), user.at, &bytes), None);
        let (to, bytes) = self.replies.pop()?;
        assert_eq!((to, self.replies.len()), (user.client(), 0));
        let message = Message::decode(&bytes).unwrap();
        assert_eq!((message.method(), message.id()), (method, id));
        let code = match (message.class(), message.get(kind::ERROR_CODE)) {
            (Class::Success, None) => 0,
            (Class::Error, Some(Ok(Attribute::ErrorCode(reason)))) => reason.code,
            other => panic!("neither success nor error: {other:?}"),
        };
        if !matches!(code, 400 | 401 | 438 | 441) {
            let algorithm = if user.sha256 {
                Algorithm::Sha256
            } else {
                Algorithm::Md5
            };
            let key = Key::long_term(
                algorithm,
                user.name.as_bytes(),
                b"shoal",
                user.password.as_bytes(),
            );
            assert!(message.is_made_with(&key), "answers are protected");
            assert_eq!(message.has_integrity_sha256(), user.sha256);
        }
        Some(Answer { code, bytes })
    }

    pub(super) fn ask(
        &mut self,
        user: &mut User,
        method: Method,
        attributes: &[Attribute<'_>],
    ) -> Answer {
        let id = self.id();
        let answer = self
            .ask_once(user, id, method, attributes)
            .expect("an answer");
        if !matches!(answer.code, 401 | 438) {
            return answer;
        }
        let Some(Attribute::Nonce(nonce)) = answer.get(kind::NONCE) else {
            panic!("a challenge has a nonce");
        };
        user.nonce = nonce.to_vec();
        let id = self.id();
        self.ask_once(user, id, method, attributes)
            .expect("an answer")
    }

    pub(super) fn allocate(&mut self, user: &mut User, more: &[Attribute<'_>]) -> Answer {
        let mut all = vec![Attribute::RequestedTransport(TRANSPORT_UDP)];
        all.extend(more);
        self.ask(user, Method::ALLOCATE, &all)
    }

    pub(super) fn bind(&mut self, user: &mut User, number: u16, peer: &str) -> u16 {
        let peer = Attribute::XorPeerAddress(address(peer));
        let all = [Attribute::ChannelNumber(number), peer];
        self.ask(user, Method::CHANNEL_BIND, &all).code
    }

    pub(super) fn permit(&mut self, user: &mut User, peers: &[&str]) -> u16 {
        let all: Vec<_> = peers
            .iter()
            .map(|p| Attribute::XorPeerAddress(address(p)))
            .collect();
        self.ask(user, Method::CREATE_PERMISSION, &all).code
    }

    pub(super) fn after(&mut self, secs: u64) {
        let end = self.now + Duration::from_secs(secs);
        while let Some(at) = self.server.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Effects::default();
            self.server.on_tick(self.now, &mut out);
            self.settle(out);
        }
        self.now = end;
    }
}

pub(super) fn channel(number: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = number.to_be_bytes().to_vec();
    frame.extend((data.len() as u16).to_be_bytes());
    frame.extend(data);
    frame
}

pub(super) fn send_indication(peer: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Builder::new(
        &mut bytes,
        Class::Indication,
        Method::SEND,
        TransactionId([9; 12]),
    )
    .put(&Attribute::XorPeerAddress(address(peer)))
    .put(&Attribute::Data(data));
    bytes
}
