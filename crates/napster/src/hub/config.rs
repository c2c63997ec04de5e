//! What a hub allows, and what it counts.

use std::time::Duration;

use crate::frame;

/// Limits and texts of a hub. Zero turns off a rate limit.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the hub calls itself, to users and to linked hubs.
    pub name: Vec<u8>,
    /// Lines that every user is told after logging in.
    pub motd: Vec<Vec<u8>>,
    /// Unix time, in seconds, of [`shoal_base::Time::ZERO`].
    pub epoch: u64,
    /// Connections at most, linked hubs included.
    pub max_connections: usize,
    /// Connections of one address at most; loopback is exempt unless `limit_local`.
    pub max_clones: usize,
    /// Whether limits by address hold for loopback too.
    pub limit_local: bool,
    /// Bytes of one message at most.
    pub max_message: usize,
    /// Letters of a nick at most.
    pub max_nick: usize,
    /// Files of one user at most.
    pub max_shared: usize,
    /// Files of all users at most.
    pub max_files: usize,
    /// Hits of one search at most.
    pub max_results: usize,
    /// Files told of one user at most.
    pub max_browse: usize,
    /// Searches a user may make in a minute, and how many at once.
    pub searches_per_minute: u32,
    /// Lines a user may say in a minute (rooms, private messages, pings), and a quarter at once.
    pub lines_per_minute: u32,
    /// Searches by checksum that the hub makes for all users together in a second; each looks at
    /// every file.
    pub resumes_per_second: u32,
    /// Rooms one user may be in.
    pub max_rooms_of_user: usize,
    /// Rooms in all.
    pub max_rooms: usize,
    /// Entries of a hotlist, and of an ignore list, at most.
    pub max_list: usize,
    /// Registered nicks at most.
    pub max_accounts: usize,
    /// Bans at most.
    pub max_bans: usize,
    /// Wrong passwords from one address in ten minutes, after which none is checked.
    pub max_failures: u32,
    /// How long a connection may take to log in.
    pub login_timeout: Duration,
    /// After how long a silent client is asked whether it is there.
    pub ping_interval: Duration,
    /// How often users are told the statistics.
    pub stats_interval: Duration,
    /// Bytes waiting for a client beyond which nothing more is taken from it.
    pub soft_queue: usize,
    /// Bytes waiting for a client beyond which it is cut off.
    pub hard_queue: usize,
    /// Whether only registered nicks may log in.
    pub registered_only: bool,
    /// Whether clients may register nicks.
    pub open_registration: bool,
    /// The password that hubs prove to each other; none to link to nobody.
    pub link_secret: Option<Vec<u8>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: b"shoal".to_vec(),
            motd: Vec::new(),
            epoch: 0,
            max_connections: 20_000,
            max_clones: 8,
            limit_local: false,
            max_message: frame::MAX_DATA,
            max_nick: 19,
            max_shared: 5_000,
            max_files: 50_000_000,
            max_results: 100,
            max_browse: 5_000,
            searches_per_minute: 60,
            lines_per_minute: 120,
            resumes_per_second: 4,
            max_rooms_of_user: 5,
            max_rooms: 10_000,
            max_list: 100,
            max_accounts: 1_000_000,
            max_bans: 10_000,
            max_failures: 10,
            login_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(600),
            stats_interval: Duration::from_secs(60),
            soft_queue: 256 << 10,
            hard_queue: 2 << 20,
            registered_only: false,
            open_registration: true,
            link_secret: None,
        }
    }
}

/// What a hub did since it started, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections open now.
    pub connections: u64,
    /// Users logged in here now.
    pub users: u64,
    /// Users of linked hubs.
    pub remote_users: u64,
    /// Hubs linked with this one.
    pub links: u64,
    /// Files shared here now.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Rooms open now.
    pub rooms: u64,
    /// Registered nicks.
    pub accounts: u64,
    /// Logins since the start.
    pub logins: u64,
    /// Connections and logins that were refused.
    pub refused: u64,
    /// Messages taken.
    pub messages: u64,
    /// Searches answered.
    pub searches: u64,
    /// Hits told.
    pub hits: u64,
    /// Downloads brokered.
    pub brokered: u64,
    /// Requests that a limit turned down.
    pub limited: u64,
    /// Messages that were not understood.
    pub malformed: u64,
    /// Clients cut off because they did not take what was sent to them.
    pub cut_off: u64,
}

/// Lets some actions pass in a minute, and a quarter of them (at least four) at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    per_minute: u32,
    tokens: f64,
    at: shoal_base::Time,
}

impl Allowance {
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            tokens: Self::most(per_minute),
            at: shoal_base::Time::ZERO,
        }
    }

    fn most(per_minute: u32) -> f64 {
        (f64::from(per_minute) / 4.0).max(4.0)
    }

    /// Whether one more may pass; takes it into account.
    pub(super) fn take(&mut self, now: shoal_base::Time) -> bool {
        if self.per_minute == 0 {
            return true;
        }
        let gained = now.since(self.at).as_secs_f64() * f64::from(self.per_minute) / 60.0;
        self.tokens = (self.tokens + gained).min(Self::most(self.per_minute));
        self.at = now;
        let passes = self.tokens >= 1.0;
        if passes {
            self.tokens -= 1.0;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_base::Time;

    #[test]
    fn an_allowance_lets_a_burst_pass_and_then_its_rate() {
        let mut a = Allowance::new(60);
        let passed =
            |a: &mut Allowance, at| (0..100).filter(|_| a.take(Time::from_secs(at))).count();
        assert_eq!(passed(&mut a, 10), 15);
        assert_eq!(passed(&mut a, 10), 0);
        assert_eq!(passed(&mut a, 13), 3);
        assert_eq!(passed(&mut a, 1000), 15);
        let mut free = Allowance::new(0);
        assert_eq!(passed(&mut free, 1), 100);
    }
}
