//! Flags of `sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use shoal_sim::reach::Kind;

/// Which experiment to run.
#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    Ring(RingArgs),
    Shortcuts(ShortcutsArgs),
    Chord(ChordArgs),
    Kademlia(KademliaArgs),
    Swarm(SwarmArgs),
    Freerider(FreeriderArgs),
    Flashcrowd(FlashcrowdArgs),
    Mapreduce(MapreduceArgs),
    Napster(NapsterArgs),
    Flooding(FloodingArgs),
    Supernodes(SupernodesArgs),
    Overlays(OverlaysArgs),
    Pollution(PollutionArgs),
    Reach(ReachSimArgs),
    Gossip(GossipArgs),
    Faults(FaultsArgs),
}

/// Flags of every experiment.
#[derive(Debug, Clone, Args)]
pub(crate) struct SimArgs {
    /// Where all chance comes from: the same seed replays the same run
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write a page of HTML with plots here
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,
}

/// A sort by MapReduce whose machines are killed, lost, slow, cut off or lying
///
/// The master and worker cores in virtual time: the runs of section 5 of the paper (OSDI 2004), or
/// seeds of random faults. In every run the output must be exact. Exit code 1 if what is measured is
/// not what it should be.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim mapreduce --workers 180                     The paper's runs on a tenth of its cluster
  shoal sim mapreduce --workers 1800 --report mr.html   1600 of 1800 lost and more, with plots
  shoal sim mapreduce --faults 1000 --seed 0            A thousand seeds of random faults")]
pub(crate) struct MapreduceArgs {
    /// How many worker machines
    #[arg(long, value_name = "N", default_value_t = 180)]
    pub(crate) workers: u32,
    /// Run so many seeds of random faults instead
    #[arg(long, value_name = "SEEDS")]
    pub(crate) faults: Option<u64>,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// Search in a central directory, as Napster had it
///
/// The hub's own core and its users: hits, messages and bytes of a question, and what is left when the
/// hub is shot. Exit code 1 if what is measured is not what it should be.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim napster                                     Two thousand users ask a hub
  shoal sim napster --users 10000 --files 100           As many as a server of Napster had
  shoal sim napster --questions 5000 --seed 7 --json    Figures as JSON")]
pub(crate) struct NapsterArgs {
    /// How many users
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) users: u32,
    #[command(flatten)]
    pub(crate) shares: SharesArgs,
    /// How many questions
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) questions: u32,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// What is shared, for experiments on search.
#[derive(Debug, Clone, Args)]
pub(crate) struct SharesArgs {
    /// Files of each, drawn by their popularity (Zipf's law)
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) files: u32,
    /// Different contents there are
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) contents: u32,
}

/// How neighbours are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphChoice {
    /// At random, everybody as many
    Regular,
    /// By preference for those who have many: a few have very many
    PowerLaw,
}

/// Search by flooding, as the first Gnutella had it
///
/// The Gnutella node's own core among equals: reach and messages at each TTL, the expanding ring, and
/// what is reached when the best connected are shot; beside it random walks, and ultrapeers with tables
/// and dynamic queries. Exit code 1 if what is measured is not what theory says.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim flooding --report flooding.html              Ten thousand nodes, with plots
  shoal sim flooding --graph power-law                   A few nodes have very many neighbours
  shoal sim flooding --nodes 1000 --degree 6 --json      Figures as JSON")]
pub(crate) struct FloodingArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) nodes: u32,
    /// Neighbours of each, or in the mean
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) degree: u32,
    /// How neighbours are chosen
    #[arg(long, value_enum, default_value_t = GraphChoice::Regular)]
    pub(crate) graph: GraphChoice,
    #[command(flatten)]
    pub(crate) shares: SharesArgs,
    /// How many questions at each TTL
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) questions: u32,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// Supernodes and their children, as KaZaA had them
///
/// The cores that run on sockets: members tell one supernode what they share, and supernodes flood
/// queries among themselves. What a question costs and finds, churn, supernodes killed and shot, and how
/// soon their children have others. Exit code 1 if what is measured is not what it should be.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim supernodes                                  2,550 members around 50 supernodes
  shoal sim supernodes --supernodes 500 --children 200  A hundred thousand members
  shoal sim supernodes --sweep --report s.html          Clusters of other sizes, with a plot")]
pub(crate) struct SupernodesArgs {
    /// How many supernodes
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) supernodes: u32,
    /// Children of each, in the mean
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) children: u32,
    #[command(flatten)]
    pub(crate) shares: SharesArgs,
    /// How many questions in each phase
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub(crate) questions: u32,
    /// How long members come and go, in seconds
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub(crate) churn: u32,
    /// Clusters of other sizes, too, with a tenth of the members
    #[arg(long)]
    pub(crate) sweep: bool,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// Napster, Gnutella, KaZaA and Chord side by side
///
/// The same files and questions for each: messages, bytes, what is found, hops and time, the load on the
/// busiest, what each node keeps, and what is left when the best or any are shot; and each published
/// formula beside what comes out. Exit code 1 if what is measured is not what it should be.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim overlays                                    Two thousand nodes each
  shoal sim overlays --nodes 10000 --questions 400      Ten thousand, as in docs/simulator.md
  shoal sim overlays --report overlays.html --json      A page and an object")]
pub(crate) struct OverlaysArgs {
    /// How many nodes each overlay has
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) nodes: u32,
    #[command(flatten)]
    pub(crate) shares: SharesArgs,
    /// How many questions in each phase
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) questions: u32,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// Decoys, liars and floods, with what stands against them and without
///
/// Members who share what is not what it is called, nodes that answer everything, forged answers, floods
/// of queries and connections, one machine that would be many supernodes: how much gets through. Exit
/// code 1 if a defence does not hold what it should.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim pollution                                   A thousand members
  shoal sim pollution --members 5000 --questions 1000   More of them
  shoal sim pollution --json --seed 7                   Figures as JSON")]
pub(crate) struct PollutionArgs {
    /// How many members the networks have
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) members: u32,
    /// How many questions in each case
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) questions: u32,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// Nodes behind NATs reach each other, directly or by relays
///
/// The real endpoints and relays (STUN, TURN, checks as ICE makes them) between NATs of eight kinds:
/// which pairs go directly, how soon there is a way, and how long a conversation is silent when a relay
/// is killed or a NAT forgets; then all of it at random. Exit code 1 if what is measured is not what it
/// should be.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim reach                                       All pairs of eight kinds of NAT, three relays
  shoal sim reach --nat port,sym --loss 0.02 --delay 40  Two kinds, on lines that lose packets
  shoal sim reach --relays 1 --report reach.html --json  A page and an object")]
pub(crate) struct ReachSimArgs {
    /// Kinds of NAT, each of which calls each: open, wall, full, addr, port, sym, noudp, web
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        default_value = "open,wall,full,addr,port,sym,noudp,web"
    )]
    pub(crate) nat: Vec<Kind>,
    /// Pairs of nodes for each ordered pair of kinds
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) pairs: u32,
    /// How many relays
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) relays: u32,
    /// One-way delay between any two machines, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub(crate) delay: u32,
    /// Up to so many milliseconds are added to it
    #[arg(long, value_name = "MS", default_value_t = 5)]
    pub(crate) jitter: u32,
    /// Share of the datagrams that is lost
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// After how many seconds without a packet out NATs forget
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub(crate) mapping: u32,
    /// Nodes have an address of IPv6 behind a firewall, too
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// How long calls end and begin at random, in seconds
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub(crate) churn: u32,
    /// Relays that are killed meanwhile; each is back after 30 s
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) kills: u32,
    /// NATs that forget meanwhile
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) flushes: u32,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// A rumour spreads by gossip
///
/// Each second everybody who knows it tells one other at random.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim gossip                                   A thousand nodes
  shoal sim gossip --nodes 100000 --loss 0.5         Half of the messages are lost
  shoal sim gossip --report gossip.html --seed 7     With a plot")]
pub(crate) struct GossipArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) nodes: u32,
    /// Share of the messages that is lost
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) loss: f64,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// Lookups around a ring whose nodes know their neighbours only
///
/// Half of the ring is passed on the way, or a quarter both ways round. Measured at each power of
/// two below the size asked for.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim ring                                  A thousand nodes: 500 hops
  shoal sim ring --both-ways                      250 hops
  shoal sim ring --nodes 4000 --report ring.html  With plots")]
pub(crate) struct RingArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) nodes: u32,
    /// How many lookups at each size
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) lookups: u64,
    /// Go whichever way is shorter
    #[arg(long)]
    pub(crate) both_ways: bool,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// How shortcuts are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DrawChoice {
    /// Anywhere, equally likely
    Uniform,
    /// With probability 1 / distance
    Harmonic,
}

/// Lookups in a ring whose nodes also know a few far ones
///
/// Compared with the exact mean, at each power of two below the size asked for.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim shortcuts                                      Two shortcuts each, near ones likelier
  shoal sim shortcuts --draw uniform --shortcuts 1         About twice the square root of N
  shoal sim shortcuts --nodes 16000 --report cuts.html     With plots")]
pub(crate) struct ShortcutsArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) nodes: u32,
    /// How many lookups at each size
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) lookups: u64,
    /// Shortcuts of each node
    #[arg(long, value_name = "K", default_value_t = 2)]
    pub(crate) shortcuts: u32,
    /// How they are drawn
    #[arg(long, value_enum, default_value_t = DrawChoice::Harmonic)]
    pub(crate) draw: DrawChoice,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// Which links lookups follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeChoice {
    /// Successor to successor
    Ring,
    /// Successor or predecessor, whichever way is shorter
    BothWays,
    /// Successor lists and finger tables
    Fingers,
}

/// What a lookup ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FindChoice {
    /// The node before the key, which knows who the owner is
    Predecessor,
    /// The owner itself, which shows that it lives
    Owner,
}

/// Lookups in Chord: path lengths, dying nodes, churn, load
///
/// Exit code 1 if what is measured is not what theory or the paper says.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim chord --nodes 10000 --sweep --report chord.html    Path lengths, with plots
  shoal sim chord --fail 0.5 --lookups 10000                   Half of the nodes die at once
  shoal sim chord --churn 0.4 --lookups 10000 --sweep          Nodes join and die all the time
  shoal sim chord --nodes 1000000 --lookups 100000 --json      A million nodes")]
pub(crate) struct ChordArgs {
    /// How many machines
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) nodes: u32,
    /// How many lookups (with --sweep, at each size, share or rate)
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) lookups: u64,
    /// Length of the successor list [default: 1, so that fingers alone are measured; 20 with
    /// --fail or --churn]
    #[arg(long, value_name = "R")]
    pub(crate) successors: Option<u32>,
    /// What a lookup ends at [default: predecessor, as the paper counts its path; owner with
    /// --fail or --churn]
    #[arg(long, value_enum, value_name = "WHOM")]
    pub(crate) find: Option<FindChoice>,
    /// Share of the machines that dies at once before the lookups
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) fail: f64,
    /// Joins a second, and as many deaths
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) churn: f64,
    /// Under churn, how often a node stabilises (seconds, or 5m)
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = super::seconds)]
    pub(crate) stabilise: u64,
    /// Places of each machine on the circle
    #[arg(long, value_name = "V", default_value_t = 1)]
    pub(crate) virtual_nodes: u32,
    /// Which links lookups follow
    #[arg(long, value_enum, default_value_t = ModeChoice::Fingers)]
    pub(crate) mode: ModeChoice,
    /// Have the asker ask each node in turn instead of the query being passed on
    #[arg(long)]
    pub(crate) iterative: bool,
    /// Lookups begun in a second of the simulated time
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) rate: u64,
    /// Measure also at smaller sizes, or smaller shares or rates with --fail or --churn
    #[arg(long)]
    pub(crate) sweep: bool,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// Values put and got in Kademlia, as the public BitTorrent DHT speaks it
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim kademlia                                          500 nodes
  shoal sim kademlia --nat 0.6 --loss 0.05                    As bad as the public network
  shoal sim kademlia --nodes 2000 --sweep --report kad.html   With plots")]
pub(crate) struct KademliaArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) nodes: u32,
    /// How many values are put, and got once each
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) lookups: u64,
    /// Share of the nodes that sit behind address translators
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) nat: f64,
    /// Share of the datagrams that is lost
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// Measure also at smaller sizes
    #[arg(long)]
    pub(crate) sweep: bool,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// What is put under faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SubjectChoice {
    /// Chord: membership and lookups
    Chord,
    /// Mainline: put and get
    Mainline,
}

/// Random faults, then healed: the network must become whole again
///
/// Each seed plans its own faults: loss, partitions, crashes, clogs, wrong clocks, newcomers and
/// more. Exit code 1 if a seed violates a rule.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim faults                                        A hundred seeds of everything
  shoal sim faults --seeds 1000 --seed 5000 chord         Seeds 5000 to 5999
  shoal sim faults --seeds 1 --seed 77 mainline -v        One again
  shoal sim faults --seeds 1000 --keep regressions/       Writes what fails, shrunk")]
pub(crate) struct FaultsArgs {
    /// What to put under faults [default: everything]
    #[arg(value_enum, value_name = "WHAT")]
    pub(crate) subjects: Vec<SubjectChoice>,
    /// How many seeds, counted from --seed
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) seeds: u64,
    /// Write each failing plan, made as small as it goes, into this folder
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) keep: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// The life of a swarm: arrivals, departures, the missing piece, rarest-first
///
/// Real torrents, chokers, pickers and a real tracker. Exit code 1 if what is measured is not what
/// theory says.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim swarm --quick                          A minute, small swarms, wide tolerances
  shoal sim swarm --report swarm.html              Some minutes, with plots
  shoal sim swarm --arrivals 0.4 --pieces 256      One rate of arrival")]
pub(crate) struct SwarmArgs {
    /// Arrivals a second at which the steady state is measured
    #[arg(long, value_name = "RATES", value_delimiter = ',', default_values_t = [0.05, 0.1, 0.2])]
    pub(crate) arrivals: Vec<f64>,
    /// Pieces of 64 KiB in the content
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) pieces: u32,
    /// Small and short, with wide tolerances
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// What peers get for what they give, and what those get that give nothing
///
/// Exit code 1 if what is measured is not what theory says.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim freerider --quick                      Short, with wide tolerances
  shoal sim freerider --report freerider.html      Some minutes, with plots
  shoal sim freerider --seed 2 --json              Another run, for a program to read")]
pub(crate) struct FreeriderArgs {
    /// Peers there are at any time
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) peers: usize,
    /// Short, with wide tolerances
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}

/// How long a crowd takes that comes all at once, against its size
///
/// Exit code 1 if what is measured is not what theory says.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim flashcrowd                                     16 to 512 peers and one seed
  shoal sim flashcrowd --peers 2048 --report crowd.html    With plots
  shoal sim flashcrowd --seed 2 --json                     Another run, for a program to read")]
pub(crate) struct FlashcrowdArgs {
    /// The largest crowd; every power of two from 16 to it is measured
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) peers: usize,
    /// Pieces of 64 KiB in the content
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) pieces: u32,
    /// Runs at each size
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) runs: u64,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}
