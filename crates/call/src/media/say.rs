//! What the two ends of a call say to each other beside the sound: a line of JSON each, over whatever
//! carries lines.

use super::binding::{MAX_SIGNED, SignedDescription};
use super::host::Strength;
use super::mixer::MOST_VOICES;
use serde::{Deserialize, Serialize};

/// Bytes of a line at most.
pub const MOST_LINE: usize = MAX_SIGNED + 256;
/// Members of a group at most: as many as a mixer has voices, and it.
pub const MOST_MEMBERS: usize = MOST_VOICES + 1;
/// Members of a group at most in which each has a call with each.
pub const MOST_MESHED: usize = 4;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "lowercase")]
pub enum Say {
    /// An offer or an answer.
    Describe {
        /// It.
        description: SignedDescription,
    },
    /// The callee was told.
    Ringing {
        /// What the callee would be as a host; none if it knows of none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strength: Option<Strength>,
    },
    /// The callee does not want to, or cannot.
    Refuse {
        /// Why.
        why: String,
    },
    /// The call is one of a group's. From the caller before its offer: who is in it; without members it is a
    /// group that the callee was told to mix for. From the callee before its answer, without members: it takes
    /// part, and calls those whose key is below its own.
    Group(Group),
    /// From who called, while it is talked: who mixes for a group.
    Host(Hosting),
    /// While it is talked: the speaker will hang up, and mixes until the others hear somebody else.
    Away,
    /// While it is talked: so long the speaker's microphone takes. Whoever does not know the line passes
    /// over it.
    Microphone {
        /// Milliseconds.
        delay: u16,
    },
    /// The speaker hung up.
    Bye,
}

/// A group that talks together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    #[serde(with = "one")]
    pub id: [u8; 16],
    /// Keys of all that are in it, the speaker's among them.
    #[serde(with = "many")]
    pub members: Vec<[u8; 32]>,
}

/// Who mixes for a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hosting {
    /// The group.
    #[serde(flatten)]
    pub group: Group,
    /// Keys of those that can mix: the first one there does.
    #[serde(with = "many")]
    pub hosts: Vec<[u8; 32]>,
}

/// Why a line is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SayError {
    /// It is longer than [`MOST_LINE`].
    #[error("a line that is too long")]
    TooLong,
    /// It is none of ours.
    #[error("a line that means nothing")]
    Malformed,
}

impl Say {
    /// Reads a line. Fields that we do not know are for others.
    ///
    /// # Errors
    /// If it is too long, or means nothing.
    pub fn parse(line: &str) -> Result<Self, SayError> {
        if line.len() > MOST_LINE {
            return Err(SayError::TooLong);
        }
        serde_json::from_str(line).map_err(|_| SayError::Malformed)
    }

    /// As a line, without its end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Bytes as hexadecimal digits.
mod one {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use shoal_base::id::{from_hex, to_hex};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        from_hex(&text).map_err(|_| D::Error::custom("no hexadecimal digits, or not as many"))
    }
}

/// Keys as hexadecimal digits, [`super::MOST_MEMBERS`] at most.
mod many {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use shoal_base::id::{from_hex, to_hex};

    pub(super) fn serialize<S: Serializer>(
        keys: &[[u8; 32]],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(keys.iter().map(|key| to_hex(key)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<[u8; 32]>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > super::MOST_MEMBERS {
            return Err(D::Error::custom("too many keys"));
        }
        let keys = texts.iter().map(|text| from_hex(text));
        keys.collect::<Result<_, _>>()
            .map_err(|_| D::Error::custom("a key that is none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::binding::sign_offer;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    fn keys(most: usize) -> impl Strategy<Value = Vec<[u8; 32]>> {
        prop::collection::vec(any::<[u8; 32]>(), 0..=most)
    }

    fn lines() -> impl Strategy<Value = Say> {
        let strength = (any::<bool>(), any::<bool>(), any::<u8>());
        let strength = strength.prop_map(|(mixes, open, power)| Strength { mixes, open, power });
        let group = (any::<[u8; 16]>(), keys(MOST_MEMBERS));
        let group = group
            .prop_map(|(id, members)| Group { id, members })
            .boxed();
        let hosting = (group.clone(), keys(MOST_MEMBERS));
        prop_oneof![
            prop::option::of(strength).prop_map(|strength| Say::Ringing { strength }),
            any::<String>().prop_map(|why| Say::Refuse { why }),
            group.prop_map(Say::Group),
            hosting.prop_map(|(group, hosts)| Say::Host(Hosting { group, hosts })),
            any::<u16>().prop_map(|delay| Say::Microphone { delay }),
            Just(Say::Away),
            Just(Say::Bye),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(say in lines()) {
            let line = say.to_line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(Say::parse(&line), Ok(say));
        }

        #[test]
        fn nonsense_is_refused(line in ".{0,300}") {
            if let Ok(say) = Say::parse(&line) {
                prop_assert_eq!(Say::parse(&say.to_line()), Ok(say));
            }
        }
    }

    #[test]
    fn descriptions_are_carried() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let sdp = format!("v=0\r\na=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
        let description = sign_offer(&key, [0; 16], None, sdp).expect("signed").0;
        let say = Say::Describe { description };
        assert_eq!(Say::parse(&say.to_line()), Ok(say));
    }

    #[test]
    fn lines_of_ends_that_know_no_hosts_are_understood_and_the_other_way_round() {
        let ringing = Say::Ringing { strength: None };
        assert_eq!(ringing.to_line(), r#"{"say":"ringing"}"#);
        assert_eq!(Say::parse(r#"{"say":"ringing","more":[1]}"#), Ok(ringing));
        let group = Group {
            id: [7; 16],
            members: vec![[1; 32]],
        };
        let line = Say::Group(group).to_line();
        let (id, key) = ("07".repeat(16), "01".repeat(32));
        let told = format!(r#"{{"say":"group","id":"{id}","members":["{key}"]}}"#);
        assert_eq!(line, told);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let group = Group {
            id: [0; 16],
            members: vec![[0; 32]; MOST_MEMBERS + 1],
        };
        let line = Say::Group(group).to_line();
        assert_eq!(Say::parse(&line), Err(SayError::Malformed));
        let why = "x".repeat(MOST_LINE);
        let line = Say::Refuse { why }.to_line();
        assert_eq!(Say::parse(&line), Err(SayError::TooLong));
    }
}
