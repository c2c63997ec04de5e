//! Who is there, and who is let in.

use shoal_base::Time;
use shoal_call::media::host::{Following, Key, Leading, Strength};
use shoal_call::media::mixer::{MOST_VOICES, VoiceId};
use shoal_call::media::say::{Group, Hosting, MOST_MESHED, Say};
use std::collections::{BTreeMap, VecDeque};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Threads.
    pub(super) calls: usize,
    /// Those that were not refused.
    pub(super) admitted: usize,
    /// The group in which each has a call with each.
    pub(super) group: Option<Group>,
    /// The group that somebody mixes for.
    pub(super) hosted: Option<Hosted>,
    pub(super) following: Option<Following>,
    /// We called, and choose who mixes.
    pub(super) leading: Option<Leading>,
    /// What we would be as a host.
    pub(super) strength: Strength,
    /// We are about to hang up.
    pub(super) leaving: bool,
    /// Calls, by number.
    pub(super) places: BTreeMap<u64, Place>,
    next: u64,
}

/// A group that somebody mixes for.
#[derive(Debug, Clone)]
pub(super) struct Hosted {
    pub(super) group: Group,
    /// As they were told, the best first; none as long as we choose.
    pub(super) hosts: Vec<Key>,
    /// Who told us of it; ourselves if we called.
    pub(super) by: Key,
}

impl Hosted {
    /// As it is told to others.
    pub(super) fn told(&self) -> Hosting {
        Hosting {
            group: self.group.clone(),
            hosts: self.hosts.clone(),
        }
    }
}

/// One call, from when it is begun.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) key: Key,
    /// The other end called.
    pub(super) came: bool,
    /// We called to be mixed there.
    pub(super) follows: bool,
    /// The other end knows of hosts; what it would be as one, if it said so.
    pub(super) knows: bool,
    pub(super) strength: Option<Strength>,
    pub(super) voice: Option<VoiceId>,
    /// It has sound.
    pub(super) up: bool,
    /// Nothing came for too long, or too little of what was sent.
    pub(super) quiet: bool,
    pub(super) poor: bool,
    /// It is to be hung up.
    pub(super) over: bool,
    /// The other end has said that it hears the others elsewhere.
    pub(super) moved: bool,
    /// What is to be said to the other end.
    pub(super) words: VecDeque<Say>,
}

impl State {
    /// A place for one more call.
    pub(super) fn open(&mut self, place: Place) -> u64 {
        self.next += 1;
        self.places.insert(self.next, place);
        self.next
    }

    /// Calls with sound that are not about to end.
    pub(super) fn up(&self) -> impl Iterator<Item = &Place> {
        self.places.values().filter(|place| place.up && !place.over)
    }

    /// Says whether a caller is let in, and takes part in the group that it names.
    pub(super) fn admit(
        &mut self,
        ours: &Key,
        key: &Key,
        group: Option<&Group>,
        may_call: &dyn Fn(&Key) -> bool,
    ) -> Result<bool, &'static str> {
        if self.admitted >= MOST_VOICES {
            return Err("busy");
        }
        let names = |group: &Group, key: &Key| group.members.contains(key);
        let joins = match (group, &self.group) {
            // To be mixed: who told us of the group, whom we said yes to, has named him.
            (Some(theirs), _) if theirs.members.is_empty() => {
                let ours = self.hosted.as_ref().map(|hosted| &hosted.group);
                let member = ours.is_some_and(|ours| ours.id == theirs.id && names(ours, key));
                let able = self.following.as_ref().is_some_and(Following::may_mix);
                if !member || !able || self.leaving {
                    return Err("we do not mix for that group");
                }
                false
            }
            // Whoever we said yes to named him.
            (Some(theirs), Some(ours)) if theirs.id == ours.id && names(ours, key) => true,
            _ if !may_call(key) => return Err("not a key that may call here"),
            (Some(theirs), None) if self.admitted == 0 => {
                let whole = theirs.members.len() <= MOST_MESHED
                    && names(theirs, key)
                    && names(theirs, ours);
                if whole {
                    self.group = Some(theirs.clone());
                }
                whole
            }
            // Somebody else's group is not for those who talk here.
            (_, Some(_)) => return Err("busy"),
            _ if self.hosted.is_some() => return Err("busy"),
            (_, None) => false,
        };
        self.admitted += 1;
        Ok(joins)
    }

    /// One that was admitted is no longer there.
    pub(super) fn dismiss(&mut self) {
        self.admitted = self.admitted.saturating_sub(1);
        if self.admitted == 0 {
            self.group = None;
        }
    }

    /// Whether nobody is there, or called, or wants to come in, or may be found.
    pub(super) fn is_empty(&self, now: Time) -> bool {
        let hopes = |following: &Following| following.hopes(now);
        self.calls == 0 && !self.following.as_ref().is_some_and(hopes)
    }

    /// Tells all that know of hosts who mixes, and who is in the group.
    pub(super) fn tell_hosts(&mut self, but: Option<u64>) {
        let Some(told) = self.hosted.as_ref().map(Hosted::told) else {
            return;
        };
        let knows = |(number, place): &(&u64, &mut Place)| {
            place.up && place.knows && !place.over && Some(**number) != but
        };
        for (_, place) in self.places.iter_mut().filter(knows) {
            place.words.push_back(Say::Host(told.clone()));
        }
    }

    /// Others that hear each other through us.
    pub(super) fn served(&self) -> usize {
        let through = self.following.as_ref().and_then(Following::through);
        let served = |place: &&Place| place.knows && Some(place.key) != through;
        self.up().filter(served).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Key = [1; 32];
    const FRIEND: Key = [2; 32];
    const NAMED: Key = [3; 32];
    const STRANGER: Key = [4; 32];

    fn group(id: u8, members: &[Key]) -> Group {
        Group {
            id: [id; 16],
            members: members.to_vec(),
        }
    }

    fn admit(state: &mut State, key: &Key, group: Option<&Group>) -> Result<bool, &'static str> {
        state.admit(&OURS, key, group, &|key| *key == FRIEND)
    }

    #[test]
    fn a_group_is_for_its_members_and_a_room_for_all_who_may_call() {
        let state = &mut State::default();
        let theirs = group(7, &[OURS, FRIEND, NAMED]);
        assert!(admit(state, &NAMED, Some(&theirs)).is_err());
        assert_eq!(admit(state, &FRIEND, Some(&theirs)), Ok(true));
        assert_eq!(admit(state, &NAMED, Some(&theirs)), Ok(true));
        assert!(admit(state, &STRANGER, Some(&theirs)).is_err());
        let (other, without) = (group(8, &[OURS, FRIEND, NAMED]), group(9, &[FRIEND, NAMED]));
        assert_eq!(admit(state, &FRIEND, Some(&other)), Err("busy"));
        assert_eq!(admit(state, &FRIEND, None), Err("busy"));
        state.dismiss();
        assert!(state.group.is_some());
        state.dismiss();
        // Nobody is left: the next one may begin anything. Who does not name us invites nobody.
        assert_eq!(admit(state, &FRIEND, Some(&without)), Ok(false));
        assert_eq!(admit(state, &FRIEND, None), Ok(false));
        // A room is no group, and has an end.
        assert_eq!(admit(state, &FRIEND, Some(&theirs)), Ok(false));
        while state.admitted < MOST_VOICES {
            assert_eq!(admit(state, &FRIEND, None), Ok(false));
        }
        assert_eq!(admit(state, &FRIEND, None), Err("busy"));
    }

    #[test]
    fn a_host_lets_in_the_members_that_it_was_told_of_and_nobody_else() {
        let state = &mut State::default();
        let join = |id| group(id, &[]);
        assert_eq!(admit(state, &FRIEND, None), Ok(false));
        assert!(admit(state, &NAMED, Some(&join(7))).is_err());
        state.hosted = Some(Hosted {
            group: group(7, &[OURS, FRIEND, NAMED]),
            hosts: vec![OURS, FRIEND],
            by: FRIEND,
        });
        let mut following = Following::new(OURS, [FRIEND]);
        following.told(Time::ZERO, vec![OURS, FRIEND], Some(FRIEND));
        state.following = Some(following);
        assert_eq!(admit(state, &NAMED, Some(&join(7))), Ok(false));
        assert!(admit(state, &NAMED, Some(&join(8))).is_err());
        assert!(admit(state, &STRANGER, Some(&join(7))).is_err());
        // Whom we would let in otherwise does not come among them.
        assert_eq!(admit(state, &FRIEND, None), Err("busy"));
        state.leaving = true;
        assert!(admit(state, &NAMED, Some(&join(7))).is_err());
    }
}
