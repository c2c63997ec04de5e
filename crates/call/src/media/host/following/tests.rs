use super::*;
use proptest::prelude::*;

/// A turn of the world.
const TURN: Duration = Duration::from_millis(100);
/// Turns until a call has sound, until silence is noticed, until a call without packets ends, until it is
/// known that nobody is there.
const SET_UP: u64 = 4;
const NOTICED: u64 = 15;
const BROKEN: u64 = 150;
const NOBODY: u64 = 200;

/// A call that somebody began.
#[derive(Debug)]
struct Line {
    from: usize,
    to: usize,
    began: u64,
    up: bool,
    /// The one who began it hears and says nothing there yet.
    waits: bool,
}

/// Ends, the number of the caller, and what happened to them.
struct World {
    turn: u64,
    ends: Vec<Following>,
    lines: Vec<Line>,
    dead: Vec<Option<u64>>,
    /// Pairs that do not get to each other.
    cut: Vec<(usize, usize)>,
    /// The most turns in which somebody alive, whom nothing cuts off, did not hear another.
    gap: u64,
    apart: u64,
}

fn key(n: usize) -> Key {
    [u8::try_from(n).expect("few"); 32]
}

fn number(key: Key) -> usize {
    usize::from(key[0])
}

impl World {
    /// One end has called all others, and tells them of hosts.
    fn new(ends: usize, caller: usize, hosts: &[usize], cut: Vec<(usize, usize)>) -> Self {
        let mut world = Self {
            turn: 0,
            ends: Vec::new(),
            lines: Vec::new(),
            dead: vec![None; ends],
            cut,
            gap: 0,
            apart: 0,
        };
        for n in 0..ends {
            let others: Vec<_> = (0..ends).filter(|m| *m != n).map(key).collect();
            let (up, from) = match n == caller {
                true => (others, None),
                false => (vec![key(caller)], Some(key(caller))),
            };
            let mut end = Following::new(key(n), up);
            end.told(Time::ZERO, hosts.iter().copied().map(key).collect(), from);
            world.ends.push(end);
            if n != caller {
                world.lines.push(Line {
                    from: caller,
                    to: n,
                    began: 0,
                    up: true,
                    waits: false,
                });
            }
        }
        world
    }

    fn now(&self) -> Time {
        Time::ZERO + TURN * u32::try_from(self.turn).expect("few")
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a, b)) || self.cut.contains(&(b, a))
    }

    fn kill(&mut self, n: usize) {
        self.dead[n] = Some(self.turn);
    }

    fn hang_up(&mut self, a: usize, b: usize) {
        let now = self.now();
        let between = |l: &Line| (l.from, l.to) == (a, b) || (l.from, l.to) == (b, a);
        if self.lines.iter().any(|l| between(l) && l.up) && self.dead[b].is_none() {
            self.ends[b].left(now, key(a), true);
        }
        self.lines.retain(|l| !between(l));
    }

    /// What comes of calls in this turn.
    fn calls(&mut self) {
        let (now, turn) = (self.now(), self.turn);
        let mut over = Vec::new();
        for i in 0..self.lines.len() {
            let Line {
                from,
                to,
                began,
                up,
                ..
            } = self.lines[i];
            let deaf = self.is_cut(from, to) && !up;
            let death = [from, to].into_iter().filter_map(|n| self.dead[n]).min();
            match (up, death) {
                (true, Some(death)) if turn >= death + BROKEN => over.push(i),
                (false, None) if !deaf && turn >= began + SET_UP => {
                    if self.ends[to].may_mix() {
                        self.lines[i].up = true;
                        self.ends[from].joined(key(to));
                        self.ends[to].joined(key(from));
                    } else if turn >= began + 30 {
                        over.push(i);
                    }
                }
                (false, _) if turn >= began + NOBODY => over.push(i),
                _ => {}
            }
        }
        for i in over.into_iter().rev() {
            let line = self.lines.remove(i);
            for (a, b) in [(line.from, line.to), (line.to, line.from)] {
                self.ends[a].left(now, key(b), false);
            }
        }
    }

    fn turn(&mut self) {
        self.turn += 1;
        self.calls();
        for n in 0..self.ends.len() {
            if self.dead[n].is_some() {
                continue;
            }
            let through = self.ends[n].through().map(number);
            let death = through.and_then(|t| self.dead[t]);
            self.ends[n].quiet(death.is_some_and(|death| self.turn >= death + NOTICED));
            let now = self.now();
            for act in self.ends[n].acts(now) {
                match act {
                    Act::Call(to) => self.lines.push(Line {
                        from: n,
                        to: number(to),
                        began: self.turn,
                        up: false,
                        waits: true,
                    }),
                    Act::Hear(to) => {
                        let ours = |l: &&mut Line| (l.from, l.to) == (n, number(to));
                        if let Some(line) = self.lines.iter_mut().find(ours) {
                            line.waits = false;
                        }
                    }
                    Act::HangUp(to) => self.hang_up(n, number(to)),
                    Act::Mix => assert!(self.ends[n].hosts.contains(&key(n))),
                }
            }
        }
        self.check();
    }

    /// Nothing goes in circles; for how long somebody is apart.
    fn check(&mut self) {
        let mut part: Vec<usize> = (0..self.ends.len()).collect();
        for line in self.lines.iter().filter(|l| l.up && !l.waits) {
            let alive = [line.from, line.to].iter().all(|n| self.dead[*n].is_none());
            let (a, b) = (part[line.from], part[line.to]);
            assert!(!alive || a != b, "a circle: {:?}", self.lines);
            if alive {
                part.iter_mut().filter(|p| **p == b).for_each(|p| *p = a);
            }
        }
        let alive = |n: &usize| self.dead[*n].is_none();
        let mut parts: Vec<_> = (0..part.len()).filter(alive).map(|n| part[n]).collect();
        parts.sort_unstable();
        parts.dedup();
        self.apart = if parts.len() > 1 { self.apart + 1 } else { 0 };
        self.gap = self.gap.max(self.apart);
    }

    fn turns(&mut self, turns: u64) {
        for _ in 0..turns {
            self.turn();
        }
    }

    /// Ends with a call with this one.
    fn around(&self, n: usize) -> usize {
        let with = |l: &&Line| l.up && (l.from == n || l.to == n);
        self.lines.iter().filter(with).count()
    }
}

#[test]
fn all_move_to_the_host_and_nobody_misses_a_word() {
    let mut world = World::new(6, 0, &[2, 1, 0], Vec::new());
    world.turns(20);
    assert_eq!((world.around(2), world.around(0), world.gap), (5, 1, 0));
}

#[test]
fn the_next_takes_over_from_a_host_that_dies() {
    let mut world = World::new(6, 0, &[2, 1, 0], Vec::new());
    world.turns(20);
    world.kill(2);
    world.turns(40);
    // Noticed after 1.5 s; then a call.
    assert_eq!(world.around(1), 5);
    assert!(
        (NOTICED..=NOTICED + SET_UP).contains(&world.gap),
        "{}",
        world.gap
    );
    world.kill(1);
    world.turns(60);
    assert!(world.gap <= NOTICED + SET_UP, "{}", world.gap);
    // The two of them at once: one after the other is called.
    let mut world = World::new(6, 0, &[2, 1, 0], Vec::new());
    world.turns(20);
    world.kill(2);
    world.kill(1);
    world.turns(100);
    assert!(world.apart == 0 && world.gap <= 50, "{}", world.gap);
}

#[test]
fn a_host_that_leaves_is_not_missed() {
    let mut world = World::new(6, 0, &[2, 1, 0], Vec::new());
    world.turns(20);
    for n in [0, 1, 3, 4, 5] {
        world.ends[n].away(key(2));
    }
    world.turns(20);
    // The next one alone still has a call with it, which it ends.
    assert_eq!((world.around(2), world.around(1), world.gap), (1, 5, 0));
    world.hang_up(2, 1);
    world.dead[2] = Some(0);
    world.turns(20);
    assert_eq!((world.around(1), world.gap), (4, 0));
}

#[test]
fn who_does_not_get_to_the_host_stays_where_it_is() {
    let mut world = World::new(6, 0, &[2, 1, 0], vec![(2, 3), (2, 4)]);
    world.turns(300);
    assert_eq!((world.around(2), world.around(0), world.gap), (3, 3, 0));
}

#[test]
fn who_hears_nobody_hopes_for_a_while() {
    let mut end = Following::new(key(3), [key(0)]);
    end.told(Time::ZERO, vec![key(2), key(0)], Some(key(0)));
    let at = |s| Time::from_secs(s);
    assert!(!end.hopes(at(0)), "all is well");
    end.left(at(10), key(0), false);
    assert!(end.hopes(at(39)) && !end.hopes(at(40)));
    end.left(at(11), key(2), true);
    end.told(at(50), vec![key(2)], None);
    assert!(end.acts(at(50)).contains(&Act::Call(key(2))));
    end.left(at(51), key(2), true);
    assert!(!end.hopes(at(51)), "it has hung up");
}

proptest! {
    #[test]
    fn nothing_goes_in_circles_and_who_is_alive_is_heard(
        ends in 3..9usize,
        caller in 0..3usize,
        hosts in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
        able in 1..9usize,
        cut in prop::collection::vec((0..9usize, 0..9usize), 0..6),
        deaths in prop::collection::vec((1..300u64, 0..9usize), 0..3),
    ) {
        let mut hosts: Vec<_> = hosts.into_iter().filter(|n| *n < ends).take(able).collect();
        if !hosts.contains(&caller) {
            hosts.push(caller);
        }
        let whole = cut.is_empty();
        let mut world = World::new(ends, caller, &hosts, cut);
        for _ in 0..800 {
            for (turn, n) in &deaths {
                if *turn == world.turn && *n < ends {
                    world.kill(*n);
                }
            }
            world.turn();
        }
        let left = hosts.iter().any(|n| world.dead[*n].is_none());
        prop_assert!(!whole || !left || world.apart == 0, "apart for {} turns: {:?}", world.apart, world.lines);
    }
}
