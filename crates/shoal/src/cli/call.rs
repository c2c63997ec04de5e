//! Flags of `call`, `answer` and `phone`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{NameFlags, listen_addr, seconds};

/// Call somebody, and talk
///
/// Whoever has a login server (--login) calls by name or key, behind whatever NATs both are: the ring
/// of supernodes tells whose key a name is, and a connection between the two carries everything, by
/// another relay when one dies. Without one a call needs an address.
///
/// The sound is encrypted from end to end (DTLS-SRTP), and keys are bound to the certificates by
/// signatures. Who does not know the other's key reads the digits to him: if both have the same,
/// nobody sits between.
///
/// Several people (up to 16) are called at once and all hear each other. Up to three of them, with us, have a
/// call each with each (those who run `shoal answer --conference`). More hear each other through the strongest
/// end, which is chosen when they have joined: one without a NAT before it, then one that is reached directly,
/// then the one with the most power to spare. Another takes over when it goes or fails. Who knows nothing of
/// groups hears the others through us.
///
/// At a terminal the voice is the default microphone's and loudspeaker's, if this program was built with
/// them (cargo's feature sound) and there are any; use headphones, since nothing takes away the echo of a
/// loudspeaker. m and Enter mute the microphone. Else it comes from a WAV file and goes into one (16-bit PCM, one or two channels, any
/// usual rate). The call ends when either hangs up, or the file has been heard.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal call alice --login login.example.org:1213 --wav-in hello.wav --wav-out answer.wav
                                                     Call whoever has that name; her key will do too
  shoal call alice                                   By microphone and loudspeaker
  shoal call alice bob carol --wav-in hello.wav --wav-out heard.wav
                                                     All of them at once
  shoal call alice bob --add                         Both, and whoever is named on standard input later
  shoal call alice.example:7080 --wav-in hello.wav --wav-out answer.wav
                                                     Call whoever runs `shoal answer` there
  shoal call 192.0.2.7:7080 --expect 3b6a27… --relay turn.example:3478 --relay-secret-file secret
                                                     Only the owner of that key; through a relay if need be
  shoal call --offer-out offer --answer-in answer --wav-in hello.wav
                                                     Offer and answer go by files, however they are carried")]
pub(crate) struct CallArgs {
    /// Whom: names, keys, or one address (HOST:PORT) at which `shoal answer` listens
    #[arg(
        value_name = "WHOM",
        required_unless_present = "offer_out",
        conflicts_with = "offer_out"
    )]
    pub(crate) whom: Vec<String>,
    #[command(flatten)]
    pub(crate) net: CallNetFlags,
    /// Call everybody as well whose name or key comes on standard input, a line each
    #[arg(long, requires = "whom")]
    pub(crate) add: bool,
    /// Talk only to the owner of this key (64 hexadecimal digits, as `shoal answer` tells its own)
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub(crate) expect: Option<[u8; 32]>,
    /// Write the offer to this file instead of sending it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "answer_in")]
    pub(crate) offer_out: Option<PathBuf>,
    /// Wait for the answer in this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "offer_out")]
    pub(crate) answer_in: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) talk: TalkFlags,
}

/// Wait for calls, and talk
///
/// Answers whoever calls, or only the owners of the keys that are named, one call after another. With
/// a login server (--login) calls come by our key, or under a name by --as, through whatever NATs are
/// between; texts for the name are shown meanwhile, as by `shoal chat`, and written with --chat.
///
/// Since it answers by itself, no microphone and no loudspeaker opens unless it is asked for
/// (--microphone, --loudspeaker), and none before somebody calls. At a terminal m and Enter mute the microphone,
/// unless what is typed is a text (--chat).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal answer --as alice --login login.example.org:1213 --wav-in hello.wav --wav-out heard.wav
                                                     Answer whoever calls alice
  shoal answer --as alice --allow 3b6a27… --microphone --loudspeaker
                                                     Talk with the owner of that key
  shoal answer --listen :7080 --wav-in hello.wav --wav-out heard.wav
                                                     Answer anybody, again and again
  shoal answer --allow 3b6a27… --once --wav-out heard.wav
                                                     One call, from the owner of that key
  shoal answer --as office --conference --wav-out heard.wav
                                                     A room: whoever calls hears all who have called
  shoal answer --as bob --conference --no-mix --wav-in hello.wav
                                                     Take part in groups, and let others mix large ones
  shoal answer --offer-in offer --answer-out answer --wav-in hello.wav
                                                     Offer and answer go by files")]
pub(crate) struct AnswerArgs {
    #[command(flatten)]
    pub(crate) net: CallNetFlags,
    /// Take calls by address here, and no others [default without a login server: :7080]
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) listen: Option<SocketAddr>,
    /// Talk only to the owner of this key (may be repeated)
    #[arg(long = "allow", value_name = "KEY", value_parser = key)]
    pub(crate) allow: Vec<[u8; 32]>,
    #[command(flatten)]
    pub(crate) chat: TextFlags,
    /// End after one call
    #[arg(long)]
    pub(crate) once: bool,
    /// Take several calls at once, so that all hear each other; and call the members of a group that we
    /// are invited to, or mix for it if we are its strongest end
    #[arg(long, conflicts_with_all = ["listen", "offer_in"])]
    pub(crate) conference: bool,
    /// Take the offer from this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "answer_out")]
    pub(crate) offer_in: Option<PathBuf>,
    /// Write the answer to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "offer_in")]
    pub(crate) answer_out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) talk: TalkFlags,
}

/// By whom we are reached, and reach others.
#[derive(Debug, Args)]
pub(crate) struct CallNetFlags {
    #[command(flatten)]
    pub(crate) names: NameFlags,
    /// Under which name of ours (shoal name claim) [default: none, a key alone]
    #[arg(long = "as", value_name = "NAME", env = "SHOAL_NAME")]
    pub(crate) own: Option<String>,
    /// Send and receive datagrams of connections here
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) udp: SocketAddr,
}

/// Texts beside calls.
#[derive(Debug, Args)]
pub(crate) struct TextFlags {
    /// Lines of stdin are texts under our name, as in `shoal chat`: to NAME, or to whom `/to NAME` says. So one
    /// program takes a name's calls and texts (two of them cannot)
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        requires = "own"
    )]
    pub(crate) chat: Option<String>,
}

/// Sound, and ways to us.
#[derive(Debug, Args)]
pub(crate) struct TalkFlags {
    /// What is said: a WAV file [default: silence]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) wav_in: Option<PathBuf>,
    /// What is heard goes into this WAV file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) wav_out: Option<PathBuf>,
    /// What is said comes from this microphone (as `shoal sound` lists them), or from the default one
    #[arg(
        long,
        value_name = "DEVICE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        conflicts_with = "wav_in"
    )]
    pub(crate) microphone: Option<String>,
    /// What is heard goes to this loudspeaker, or to the default one; into --wav-out as well, if that is
    /// given
    #[arg(
        long,
        value_name = "DEVICE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub(crate) loudspeaker: Option<String>,
    /// Take no microphone and no loudspeaker, which a call from a terminal does by itself where no files
    /// are named
    #[arg(long, conflicts_with_all = ["microphone", "loudspeaker"])]
    pub(crate) no_sound: bool,
    /// Stay on the line when all of the file was said
    #[arg(long)]
    pub(crate) stay: bool,
    /// Hang up after so long
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) limit: Option<u64>,
    /// Tell the other side no address of ours, in calls by name or key: all goes by relays, which see it
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Send next to nothing while nobody speaks
    #[arg(long)]
    pub(crate) dtx: bool,
    /// Do not mix the voices of a large group for the others, unless we called it and nobody else can
    #[arg(long)]
    pub(crate) no_mix: bool,
    /// The file with our key for calls by address; made if it is not there [default: a key for this call alone]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// Sound comes and goes here [default: every address of this machine, any port]
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) bind: Option<SocketAddr>,
    /// Tell the other end this address instead of our own: what a router passes on to --bind
    #[arg(long, value_name = "ADDR", requires = "bind")]
    pub(crate) advertise: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) relays: RelayFlags,
    /// Use relays only, so that the other end does not learn our address
    #[arg(long, requires = "relay")]
    pub(crate) relay_only: bool,
}

/// List microphones and loudspeakers that calls can use
///
/// A line each: what it is, what --microphone=DEVICE and --loudspeaker=DEVICE take, what people call it. `default` is
/// the one that the system takes for the right one.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sound
  shoal sound --json | jq -r .id
  shoal call alice --microphone=hw:CARD=1,DEV=0      With one of them")]
pub(crate) struct SoundArgs {}

/// Serve a page from which a browser calls: its microphone and loudspeaker, this machine's key
///
/// With a login server (--login) it calls by name or key, up to three people at once, and is called so, through
/// whatever NATs are between: the sound goes by this node's connections. Prints the page's address with a token in it; whoever has it can call as we. Browsers give the
/// microphone to pages of this machine (loopback) and to https alone, so that the page is for the
/// browser on this machine.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal phone --as alice --login login.example.org:1213
                                                     The page, and calls for alice
  shoal phone --as alice --chat=bob                  Texts to bob beside it
  shoal phone                                        The page, and calls by address at port 7080
  shoal phone --key me.key --allow 3b6a27…           Ring only for the owner of that key
  shoal phone --relay turn.example:3478 --relay-secret-file secret
                                                     A relay for when no other path is there")]
pub(crate) struct PhoneArgs {
    /// The page is here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7071", value_parser = listen_addr)]
    pub(crate) page: SocketAddr,
    #[command(flatten)]
    pub(crate) net: CallNetFlags,
    /// Take calls by address here [default without a login server: :7080]
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) chat: TextFlags,
    /// Ring only for the owner of this key (may be repeated)
    #[arg(long = "allow", value_name = "KEY", value_parser = key)]
    pub(crate) allow: Vec<[u8; 32]>,
    /// The file with our key for calls by address; made if it is not there [default: a key for this run alone]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) relays: RelayFlags,
}

/// Who helps to find a path.
#[derive(Debug, Args)]
pub(crate) struct RelayFlags {
    /// Ask this STUN server how we look from outside (may be repeated)
    #[arg(long, value_name = "ADDR")]
    pub(crate) stun: Vec<String>,
    /// A TURN relay that may be used, by UDP (may be repeated)
    #[arg(long, value_name = "ADDR")]
    pub(crate) relay: Vec<String>,
    /// The file whose first line makes credentials for the relays
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "relay")]
    pub(crate) relay_secret_file: Option<PathBuf>,
    /// Name and password for the relays
    #[arg(
        long,
        value_name = "NAME:PASSWORD",
        requires = "relay",
        conflicts_with = "relay_secret_file"
    )]
    pub(crate) relay_user: Option<String>,
}

/// A public key.
fn key(text: &str) -> Result<[u8; 32], String> {
    shoal_base::id::from_hex(text).map_err(|_| "64 hexadecimal digits are a key".to_owned())
}
