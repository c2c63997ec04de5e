"""People between all types of NAT: calls by name, what a direct call loses with the relays, and letters without UDP."""

import statistics
import threading
import time

from call_lab import DELAY, Call, Person, voice
from lab.clients.shoal import program
from lab.nat import TYPES, Home, meets
from lab.process import Failure, wait_until
from reach_cases import Overlay, check, events


def pairs(lab):
    """Every ordered pair of types: both ends hear each other, directly exactly where that is possible.

    Whoever is in a call is busy: each round is one call of each to another, all at once.
    """
    overlay = Overlay(lab, delay=DELAY)
    said = voice(lab.path("voice.wav"), 6, bursts=False)
    people = {kind: Person(overlay, Home(lab, kind, delay=DELAY), f"bob-{kind}", said) for kind in TYPES}
    homes = {kind: Home(lab, kind, delay=DELAY) for kind in TYPES}
    direct_of = {kind: [] for kind in TYPES}
    faults, rings, sounds = [], [], []

    def one(a, b):
        try:
            call = Call(overlay, homes[a], people[b], said)
            took = call.talks()
            check(call.process.wait(40) == 0, f"it failed: {call.process.tail(6)}")
            theirs = wait_until("the other end has ended too", 10, lambda: events(people[b].out, "call_ended")[len(direct_of[b]) :])[0]
            direct_of[b].append(not call.relays())
            ours = events(call.out, "call_ended")[0]
            heard = [end["stats"]["received"] for end in (ours, theirs)]
            # Six seconds of packets of 20 ms; the first may pass before both ends are ready.
            check(min(heard) >= 250, f"{heard} packets came")
            check((not call.relays()) == meets(a, b), f"the way is {call.relays() or 'direct'}")
            rings.append(took["ring_to_sound_ms"])
            sounds.append(took["sound_ms"])
        except Failure as failure:
            faults.append(f"{a} to {b}: {failure}")

    for turn in range(len(TYPES)):
        calls = [threading.Thread(target=one, args=(a, TYPES[(n + turn) % len(TYPES)])) for n, a in enumerate(TYPES)]
        [c.start() for c in calls]
        [c.join() for c in calls]
    check(not faults, f"{len(faults)} of {len(TYPES) ** 2}: " + "; ".join(faults[:6]))
    direct = sum(map(sum, direct_of.values()))
    return (
        f"{direct} direct, {len(rings) - direct} relayed, eight at once; ring to first sound {statistics.median(rings)} ms "
        f"(worst {max(rings)}), command to first sound {statistics.median(sounds)} ms (worst {max(sounds)})"
    )


def without_relays(lab):
    """All supernodes are killed under a direct call, its relays with them: no packet is lost."""
    overlay = Overlay(lab, delay=DELAY)
    said = voice(lab.path("voice.wav"), 14, bursts=False)
    bob = Person(overlay, Home(lab, "port", delay=DELAY), "bob", said)
    call = Call(overlay, Home(lab, "port", delay=DELAY), bob, said)
    call.talks()
    wait_until("the way is direct", 10, lambda: not call.relays())
    # Of what was lost before nothing is said.
    before = wait_until("figures of a direct call", 5, lambda: events(call.out, "call_stats") and events(bob.out, "call_stats"))
    before = [events(call.out, "call_stats")[-1], before[-1]]
    for supernode in overlay.supernodes.values():
        supernode.kill()
    check(call.process.wait(40) == 0, f"the call failed: {call.process.tail(6)}")
    theirs = wait_until("the other end has ended too", 10, lambda: events(bob.out, "call_ended"))
    after = [events(call.out, "call_ended")[0], theirs[0]]
    lost = [now["stats"]["lost"] - then["stats"]["lost"] for now, then in zip(after, before)]
    came = [now["stats"]["received"] - then["stats"]["received"] for now, then in zip(after, before)]
    check(min(came) >= 250, f"{came} packets came")
    check(not any(lost), f"{lost} packets of {came} were lost")
    return f"{came[0]} and {came[1]} packets came afterwards, none was lost"


def letters_without_udp(lab):
    """Who has no UDP cannot ask the ring of names: supernodes ask it for them, and letters find their boxes."""
    overlay = Overlay(lab, supernodes=3, delay=DELAY)

    def chat(home, name, with_whom, texts=None):
        out = lab.path(f"{name}.json")
        (lab.dir / name).mkdir(exist_ok=True)
        argv = [program(), "chat", with_whom, "--as", name, "--login", overlay.login, "--json", "--state-dir", lab.dir / name]
        stdin = None
        if texts is not None:
            stdin = lab.path("texts")
            stdin.write_text("".join(f"{t}\n" for t in texts))
        return lab.spawn(name, home.inside(argv if stdin else [*argv, "--stay"]), stdout=out, stdin=stdin and open(stdin, "rb")), out

    here, there = Home(lab, "noudp", delay=DELAY), Home(lab, "web", delay=DELAY)
    began = time.monotonic()
    bob, told = chat(there, "bob", "alice")
    wait_until("bob is in the ring", 40, lambda: events(told, "published"))
    published = time.monotonic() - began
    wait_until("bob has boxes", 20, lambda: len(events(told, "homes")[-1]["homes"]) == 3)
    # A record of three homes replaces one of fewer.
    wait_until("all of them are in the ring", 20, lambda: len(events(told, "published")) == len(events(told, "homes")))
    bob.kill()
    texts = [f"the heron flies at dawn, {n}" for n in range(20)]
    alice, said = chat(here, "alice", "bob", texts)
    check(alice.wait(60) == 0, f"it failed: {alice.tail(6)}")
    check(len({e["seq"] for e in events(said, "stored")}) == 20, f"{events(said, 'stored')} were stored")
    began = time.monotonic()
    bob, told = chat(there, "bob", "alice")
    wait_until("all texts are told", 30, lambda: len(events(told, "text")) >= 20)
    took = time.monotonic() - began
    check([e["text"] for e in events(told, "text")] == texts, "other texts came")
    return f"in the ring {published:.2f} s after the program's start; 20 texts {took:.2f} s after the recipient's return"


def cases(add, bound):
    """Adds the cases: they measure, for which nothing else may run (`./dev calls`)."""
    add("call lab: by name, every ordered pair of NAT types", pairs, [], extra=True)
    add("call lab: all supernodes killed under a direct call", without_relays, [], extra=True)
    add("call lab: letters between two without UDP", letters_without_udp, [], extra=True)
