//! A group that somebody mixes for: whom we hear the others through, and who is told of it.

use super::state::{Hosted, Place, State};
use super::strength::strength;
use super::{Errand, Happened, Shared, lock};
use crate::call::CallEvent;
use crate::call::talk::Aside;
use shoal_call::media::host::{Act, Following, Key, Leading};
use shoal_call::media::say::{Group, Hosting, MOST_MEMBERS, Say};
use std::sync::Arc;
use std::time::Duration;

/// How long who may mix for us is called again that was not told yet that it does.
const TOLD_SOON: Duration = Duration::from_secs(3);

/// A call in which nothing came for so long is over, or about to be. Changing from one relay to another, or
/// to a new mapping of a NAT, takes less.
const QUIET: Duration = Duration::from_millis(1500);
/// Of the packets of a second, one in so many that is lost makes it a poor one; and how many such seconds in a
/// row make the call one.
const POOR: u64 = 4;
const POOR_SECONDS: u32 = 3;

/// What goes on in one call beside its sound.
pub(super) struct InCall<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) number: u64,
}

impl Aside for InCall<'_> {
    fn say(&mut self) -> Option<Say> {
        let mut state = lock(&self.shared.state);
        state.places.get_mut(&self.number)?.words.pop_front()
    }

    fn hear(&mut self, said: Say) {
        match said {
            Say::Host(told) => self.shared.on_hosts(self.number, told),
            Say::Away => self.shared.on_away(self.number),
            _ => {}
        }
    }

    fn is_over(&mut self, quiet: Duration) -> bool {
        let mut state = lock(&self.shared.state);
        let place = state.places.get_mut(&self.number);
        place.is_some_and(|place| {
            place.quiet = quiet >= QUIET;
            place.over
        })
    }
}

/// Sees whether too little comes.
#[derive(Debug, Default)]
pub(super) struct Loss {
    came: u64,
    lost: u64,
    poor: u32,
}

impl Loss {
    /// Asked once a second, with what has come and was lost since the beginning.
    pub(super) fn is_poor(&mut self, came: u64, lost: u64) -> bool {
        let (more, less) = (
            came.saturating_sub(self.came),
            lost.saturating_sub(self.lost),
        );
        (self.came, self.lost) = (came, lost);
        match less * POOR > more + less {
            true => self.poor += 1,
            false => self.poor = 0,
        }
        self.poor >= POOR_SECONDS
    }
}

impl Shared {
    /// We call these, of whom one may mix; `id` names the group.
    pub(super) fn lead(&self, id: [u8; 16], called: &[Key]) {
        let ours = self.ours();
        let members = called.iter().copied().chain([ours]).collect();
        let mut state = lock(&self.state);
        state.leading = Some(Leading::new(ours, called.iter().copied()));
        state.hosted = Some(Hosted {
            group: Group { id, members },
            hosts: Vec::new(),
            by: ours,
        });
    }

    /// One more is about to be called.
    pub(super) fn admit_more(&self, key: Key) -> Result<(), &'static str> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if key == self.ours() || state.places.values().any(|p| p.key == key && !p.over) {
            return Err("is here already");
        }
        let (Some(hosted), Some(leading)) = (&mut state.hosted, &mut state.leading) else {
            // The others hear who comes to a small group through us.
            return Ok(());
        };
        if !hosted.group.members.contains(&key) {
            if hosted.group.members.len() >= MOST_MEMBERS {
                return Err("would be one too many");
            }
            hosted.group.members.push(key);
        }
        leading.add(key);
        if !hosted.hosts.is_empty() {
            state.tell_hosts(None);
        }
        Ok(())
    }

    /// Something was told of a call.
    pub(super) fn note(&self, number: u64, key: Key, event: &CallEvent, loss: &mut Loss) {
        let mut state = lock(&self.state);
        match event {
            CallEvent::Way { relays, rtt, .. } => {
                if let Some(leading) = &mut state.leading {
                    leading.measured(key, relays.is_empty(), *rtt);
                }
            }
            CallEvent::Stats(stats, _) => {
                let poor = loss.is_poor(stats.receiver.received, stats.receiver.lost);
                if let Some(place) = state.places.get_mut(&number) {
                    place.poor = poor;
                }
            }
            _ => {}
        }
    }

    /// A call has sound.
    pub(super) fn on_sound(&self, number: u64) {
        let leads = lock(&self.state).leading.is_some();
        let ours = leads.then(|| strength(self.mixes, &self.reach));
        let (mut guard, now) = (lock(&self.state), self.now());
        let state = &mut *guard;
        state.strength = ours.unwrap_or(state.strength);
        let Some(place) = state.places.get_mut(&number) else {
            return;
        };
        place.up = true;
        let key = place.key;
        if !place.over
            && let Some(following) = &mut state.following
        {
            following.joined(key);
        }
        let (Some(leading), Some(hosted)) = (&mut state.leading, &state.hosted) else {
            return;
        };
        if !place.came && !place.follows && leading.joined(now, key, place.strength).is_some() {
            place.words.push_back(Say::Host(hosted.told()));
        }
    }

    /// A call is over; `for_good` if its other end wanted it so.
    pub(super) fn on_end(&self, number: u64, for_good: bool) {
        let (mut guard, now) = (lock(&self.state), self.now());
        let state = &mut *guard;
        let Some(place) = state.places.remove(&number) else {
            return;
        };
        // Another call with the same end may have begun meanwhile.
        if place.over || state.up().any(|other| other.key == place.key) {
            return;
        }
        if let Some(following) = &mut state.following {
            following.left(now, place.key, for_good);
        }
        if let Some(leading) = state.leading.as_mut().filter(|_| !place.follows) {
            leading.left(place.key);
        }
    }

    /// Who mixes, and who is in the group, was told in a call.
    fn on_hosts(&self, number: u64, told: Hosting) {
        let (mut guard, now, ours) = (lock(&self.state), self.now(), self.ours());
        let state = &mut *guard;
        let Some(place) = state.places.get(&number) else {
            return;
        };
        let (key, came) = (place.key, place.came);
        let through = state.following.as_ref().and_then(Following::through);
        let by = match &mut state.hosted {
            Some(hosted) if hosted.group.id != told.group.id => return,
            Some(hosted) if hosted.by == key => key,
            // Who mixes passes on who has come to the group since, and no more is believed of it.
            Some(hosted) if through == Some(key) => {
                let members = &mut hosted.group.members;
                let room = MOST_MEMBERS.saturating_sub(members.len());
                let more = told.group.members.iter();
                let more: Vec<_> = more.filter(|key| !members.contains(*key)).collect();
                if more.is_empty() || more.len() > room {
                    return;
                }
                members.extend(more);
                state.tell_hosts(Some(number));
                return;
            }
            Some(_) => return,
            // Who called first and alone may name others; in a room of several nobody may.
            None if came && state.group.is_none() && state.admitted == 1 => key,
            None => return,
        };
        let members = &told.group.members;
        if by == ours || !members.contains(&ours) || !members.contains(&by) {
            return;
        }
        let known = state.hosted.replace(Hosted {
            group: told.group.clone(),
            hosts: told.hosts.clone(),
            by,
        });
        if known.as_ref().is_none_or(|k| k.group != told.group) {
            state.tell_hosts(Some(number));
        }
        if known.is_some_and(|k| k.hosts == told.hosts) {
            return;
        }
        let mut hosts = told.hosts;
        hosts.retain(|host| told.group.members.contains(host) && (self.mixes || *host != ours));
        let up: Vec<_> = state.up().map(|place| place.key).collect();
        for place in state.places.values_mut() {
            place.knows = true;
        }
        let following = state
            .following
            .get_or_insert_with(|| Following::new(ours, up));
        following.told(now, hosts, Some(by));
        let through = following.through();
        drop(guard);
        if let Some(through) = through {
            self.tell(through, Happened::Mixes);
        }
    }

    /// The other end of a call is about to hang up: it hears the others elsewhere, or has to go.
    fn on_away(&self, number: u64) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(place) = state.places.get_mut(&number) else {
            return;
        };
        match &mut state.following {
            Some(following) if following.through() == Some(place.key) => following.away(place.key),
            _ => place.moved = true,
        }
    }

    /// Looks who mixes, and does what is to be done about it. To be called every 20 ms.
    pub(super) fn follow(self: &Arc<Self>) {
        let (mut guard, now, ours) = (lock(&self.state), self.now(), self.ours());
        let state = &mut *guard;
        let chosen = state.leading.as_mut().and_then(|leading| {
            let hosts = leading.acts(now, state.strength)?;
            Some(hosts.to_vec())
        });
        if let (Some(hosts), Some(hosted)) = (chosen, &mut state.hosted) {
            hosted.hosts.clone_from(&hosts);
            let up: Vec<_> = state.up().map(|place| place.key).collect();
            state.tell_hosts(None);
            let following = state
                .following
                .get_or_insert_with(|| Following::new(ours, up));
            following.told(now, hosts, None);
        }
        let Some(mut following) = state.following.take() else {
            return;
        };
        let through = following.through();
        let bad = |place: &Place| Some(place.key) == through && (place.quiet || place.poor);
        following.quiet(state.up().any(bad));
        let acts = match state.leaving {
            true => Vec::new(),
            false => following.acts(now),
        };
        state.following = Some(following);
        let mut calls = Vec::new();
        for act in acts {
            match act {
                Act::Call(key) => calls.push(key),
                Act::Hear(key) => {
                    self.hear(state, key);
                    self.tell(key, Happened::Mixes);
                }
                Act::HangUp(key) => self.hang_up(state, key),
                Act::Mix => self.tell(ours, Happened::Mixes),
            }
        }
        let group = state.hosted.as_ref().map(|hosted| Group {
            id: hosted.group.id,
            members: Vec::new(),
        });
        drop(guard);
        for key in calls {
            self.spawn_call(Errand {
                key,
                group: group.clone(),
                patience: TOLD_SOON,
                follows: true,
            });
        }
    }

    /// From now on a call is heard, and told our voice.
    fn hear(&self, state: &State, key: Key) {
        let mut mixer = lock(&self.mixer);
        let ours = state.up().filter(|place| place.key == key && place.follows);
        for voice in ours.filter_map(|place| place.voice) {
            mixer.set_waits(voice, false);
        }
    }

    /// Ends the calls with somebody.
    fn hang_up(&self, state: &mut State, key: Key) {
        let mut mixer = lock(&self.mixer);
        let with = |place: &&mut Place| place.key == key && !place.over;
        for place in state.places.values_mut().filter(with) {
            place.over = true;
            place.words.push_back(Say::Away);
            if let Some(voice) = place.voice {
                mixer.set_waits(voice, true);
            }
        }
    }

    /// We are about to hang up: whoever hears the others through us is told. False if nobody does.
    pub(super) fn leave(&self) -> bool {
        let mut state = lock(&self.state);
        if state.following.is_none() || state.served() < 2 {
            return false;
        }
        state.leaving = true;
        for place in state.places.values_mut().filter(|place| place.up) {
            place.words.push_back(Say::Away);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_seconds_with_a_quarter_lost_are_poor() {
        let mut loss = Loss::default();
        let seconds = [(50, 0), (80, 20), (110, 40), (140, 60), (190, 60)];
        let poor = seconds.map(|(came, lost)| loss.is_poor(came, lost));
        assert_eq!(poor, [false, false, false, true, false]);
    }
}
