//! What theory says of swarms.

/// Qiu and Srikant's fluid model ("Modeling and performance analysis of BitTorrent-like
/// peer-to-peer networks", SIGCOMM 2004). Rates are in contents a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fluid {
    /// Arrivals a second.
    pub lambda: f64,
    /// One peer's upload.
    pub mu: f64,
    /// One peer's download.
    pub c: f64,
    /// Rate at which leechers give up.
    pub theta: f64,
    /// Rate at which seeds leave: one over the mean residence.
    pub gamma: f64,
    /// How much of its upload a leecher can use: 1 if it always has what others lack.
    pub eta: f64,
}

impl Fluid {
    /// Upload in use by `x` leechers and `y` seeds.
    fn flow(&self, x: f64, y: f64) -> f64 {
        (self.c * x).min(self.mu * (self.eta * x + y)).max(0.0)
    }

    /// Mean seconds a leecher needs, in the steady state.
    pub fn time(&self) -> f64 {
        1.0 / (self.theta + self.beta())
    }

    /// `1/β = max(1/c, (1/η)(1/μ - 1/γ))`.
    fn beta(&self) -> f64 {
        let slowest = (1.0 / self.mu - 1.0 / self.gamma) / self.eta;
        1.0 / slowest.max(1.0 / self.c)
    }

    /// Leechers and seeds in the steady state.
    pub fn steady(&self) -> (f64, f64) {
        let share = 1.0 + self.theta / self.beta();
        (
            self.lambda / (self.beta() * share),
            self.lambda / (self.gamma * share),
        )
    }

    /// Leechers and seeds over time from `(x, y)` at time zero, every `step` seconds, `count`
    /// times: Euler's method in steps a hundred times shorter.
    pub fn path(&self, (mut x, mut y): (f64, f64), step: f64, count: usize) -> Vec<(f64, f64)> {
        let h = step / 100.0;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push((x, y));
            for _ in 0..100 {
                let flow = self.flow(x, y);
                let dx = self.lambda - self.theta * x - flow;
                let dy = flow - self.gamma * y;
                (x, y) = ((x + h * dx).max(0.0), (y + h * dy).max(0.0));
            }
        }
        out
    }
}

/// The least time in which `peers` peers of equal upload can all get a content of `pieces` pieces
/// from one seed like them, in times a peer needs to upload the content once (Mundinger, Weber and
/// Weiss, "Optimal scheduling of peer-to-peer file dissemination", J. Scheduling 2008).
pub fn makespan(peers: u32, pieces: u32) -> f64 {
    1.0 + f64::from(peers.max(1).ilog2()) / f64::from(pieces.max(1))
}

/// The arrival rate at which a swarm turns unstable (Hajek and Zhu, "The missing piece syndrome in
/// peer-to-peer communication", 2010): a fixed seed uploads `seed` pieces a second, peers `mu`
/// pieces a second, and stay for `residence` seconds on average once they have everything.
pub fn critical_rate(seed: f64, mu: f64, residence: f64) -> f64 {
    if mu * residence >= 1.0 {
        f64::INFINITY
    } else {
        seed / (1.0 - mu * residence)
    }
}

/// A free rider's share of an honest peer's rate when only optimistic unchokes serve it: one of
/// `slots` slots of each of the honest among its neighbours, which are the share `honest` of all
/// `neighbours`; whom a neighbour serves in return for what it gave is not in the draw.
pub fn free_ride(slots: u32, honest: f64, neighbours: f64) -> f64 {
    let in_draw = (neighbours - f64::from(slots - 1)).max(1.0);
    honest * neighbours / in_draw / f64::from(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fluid_comes_to_rest_where_the_formula_says() {
        let fluid = Fluid {
            lambda: 0.1,
            mu: 1.0 / 1000.0,
            c: 1.0 / 100.0,
            theta: 1.0 / 5000.0,
            gamma: 1.0 / 400.0,
            eta: 0.9,
        };
        let (x, y) = fluid.steady();
        let path = fluid.path((0.0, 1.0), 100.0, 2000);
        let (px, py) = path[path.len() - 1];
        assert!((px / x - 1.0).abs() < 0.01, "{px} {x}");
        assert!((py / y - 1.0).abs() < 0.01, "{py} {y}");
        // Little's law: those who stay or give up after `time` on average.
        assert!((x / fluid.lambda - fluid.time()).abs() < 1e-9);
    }

    #[test]
    fn seeds_that_stay_long_leave_the_downlink_as_the_limit() {
        let fluid = Fluid {
            lambda: 1.0,
            mu: 1.0,
            c: 4.0,
            theta: 0.0,
            gamma: 0.5,
            eta: 1.0,
        };
        assert_eq!(fluid.time(), 0.25);
    }

    #[test]
    fn the_bounds_are_those_of_the_papers() {
        assert_eq!(makespan(1, 1), 1.0);
        assert_eq!(makespan(512, 1), 10.0);
        assert_eq!(makespan(512, 64), 1.0 + 9.0 / 64.0);
        assert_eq!(critical_rate(0.5, 0.25, 0.0), 0.5);
        assert_eq!(critical_rate(0.5, 0.25, 2.0), 1.0);
        assert_eq!(critical_rate(0.5, 0.25, 4.0), f64::INFINITY);
        assert!((free_ride(5, 1.0, 1e9) - 0.2).abs() < 1e-6);
    }
}
