//! What a message asks for or answers: its method and its class.

/// Request, indication, or one of the two kinds of response (RFC 8489 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// The request was done.
    Success,
    /// The request was refused.
    Error,
}

/// A method, 12 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method(u16);

impl Method {
    /// What is my address? (RFC 8489)
    pub const BINDING: Self = Self(0x001);
    /// Make a relayed address (RFC 8656).
    pub const ALLOCATE: Self = Self(0x003);
    /// Keep an allocation, or end it.
    pub const REFRESH: Self = Self(0x004);
    /// Data to a peer.
    pub const SEND: Self = Self(0x006);
    /// Data from a peer.
    pub const DATA: Self = Self(0x007);
    /// Let these peers in.
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// Name a peer by a number.
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// Open a TCP connection to a peer (RFC 6062).
    pub const CONNECT: Self = Self(0x00a);
    /// Make this connection a peer's data (RFC 6062).
    pub const CONNECTION_BIND: Self = Self(0x00b);
    /// A peer has connected (RFC 6062).
    pub const CONNECTION_ATTEMPT: Self = Self(0x00c);

    /// The method of that number; its upper four bits are lost.
    pub const fn new(number: u16) -> Self {
        Self(number & 0xfff)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// The first two bytes of a message.
pub(crate) fn message_type(class: Class, method: Method) -> [u8; 2] {
    join(class, method).to_be_bytes()
}

/// The method's bits with the class's two between them.
fn join(class: Class, method: Method) -> u16 {
    let m = method.0;
    let c = match class {
        Class::Request => 0b00,
        Class::Indication => 0b01,
        Class::Success => 0b10,
        Class::Error => 0b11,
    };
    (m & 0x00f) | (m & 0x070) << 1 | (m & 0xf80) << 2 | (c & 1) << 4 | (c >> 1) << 8
}

/// The reverse; the upper two bits are not looked at.
pub(super) fn split(word: u16) -> (Class, Method) {
    let class = match (word >> 7 & 0b10) | (word >> 4 & 1) {
        0b00 => Class::Request,
        0b01 => Class::Indication,
        0b10 => Class::Success,
        _ => Class::Error,
    };
    let method = (word & 0x00f) | (word >> 1 & 0x070) | (word >> 2 & 0xf80);
    (class, Method(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_and_method_share_fourteen_bits() {
        assert_eq!(join(Class::Request, Method::BINDING), 0x0001);
        assert_eq!(join(Class::Success, Method::BINDING), 0x0101);
        assert_eq!(join(Class::Error, Method::ALLOCATE), 0x0113);
        assert_eq!(join(Class::Indication, Method::SEND), 0x0016);
        for word in 0..0x4000 {
            let (class, method) = split(word);
            assert_eq!(join(class, method), word);
        }
    }
}
