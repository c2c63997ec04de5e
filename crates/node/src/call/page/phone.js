// The browser's end of calls: it has microphone, loudspeaker and WebRTC; the node that serves this page has the key,
// carries offers and answers, signs and checks them. In calls by name or key it carries the sound too: then the browser's
// only way is to its node, and nothing is to be gathered. Several are talked to by a call each.

const token = location.hash.slice(1);
const $ = (id) => document.getElementById(id);
// Calls by address: how long candidates are gathered, which is what a relay takes; and what a second one gets after the first.
const GATHER_MS = 2500;
const SECOND_MS = 200;
// How long a member of a group is called again that has not said yes yet, and how often.
const PATIENCE_MS = 30_000;
const AGAIN_MS = 500;
// How long who is to mix is called again that was not told yet that it does; for how many seconds nothing may come from
// who mixes before the next one is called.
const TOLD_SOON_MS = 3000;
const QUIET_SECONDS = 2;
const LEGS = { new: "waiting", checking: "looking for a path", connected: "agreeing on keys", completed: "agreeing on keys" };

const calls = new Set(); // of Call
let microphone = null; // a stream to come, for all calls
let waiting = null; // {id, prepared}: the call that rings
let following = null; // {group, hosts, through, tried}: a group that somebody mixes for, and the call with him
let config = { names: false, ice: [] };

async function api(path, body) {
  const response = await fetch(`api/${path}`, {
    method: body === undefined ? "GET" : "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `the node said ${response.status}`);
  return answer;
}

function fail(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

const words = (error) => String(error.message ?? error);

// What the page as a whole does: told to whoever looks at it.
function show() {
  const some = calls.size > 0;
  $("talk").hidden = !some;
  $("dial").hidden = some;
  $("incoming").hidden = !waiting;
  const talking = [...calls].filter((call) => call.pc?.connectionState === "connected").length;
  document.body.dataset.talking = talking;
  document.body.dataset.state = waiting ? "ringing" : talking > 0 ? "talking" : some ? "calling" : "idle";
}

// One call, from its beginning here.
class Call {
  id = undefined;
  pc = null;
  marks = {};
  relays = null;
  waits = false; // not heard, and told nothing, until it is better than what there is
  silence = { packets: 0, seconds: 0 };

  constructor(text) {
    this.person = $("person").content.firstElementChild.cloneNode(true);
    $("people").append(this.person);
    calls.add(this);
    this.mark("began");
    this.timer = setInterval(() => this.figures().catch(() => {}), 1000);
    delete document.body.dataset.relays;
    fail("");
    this.state(text);
    show();
  }

  part(name) {
    return this.person.querySelector(`.${name}`);
  }

  state(text) {
    this.part("state").textContent = text;
  }

  get audio() {
    return this.person.querySelector("audio");
  }

  get over() {
    return !calls.has(this);
  }

  // Takes a connection, which may be prepared already.
  use(pc) {
    this.pc = pc;
    const track = pc.getReceivers()[0]?.track;
    if (track) this.hear(track);
    pc.ontrack = (event) => this.hear(event.track);
    pc.onconnectionstatechange = pc.oniceconnectionstatechange = () => this.changed();
  }

  hear(track) {
    this.audio.srcObject = new MediaStream([track]);
    this.audio.muted = this.waits;
    // W3C WebRTC, 5.3: a remote track is muted until its first packet comes.
    track.onunmute = () => this.mark("sound");
  }

  changed() {
    if (this.over) return;
    const { connectionState, iceConnectionState } = this.pc;
    if (["connected", "completed"].includes(iceConnectionState)) this.mark("path");
    if (connectionState === "connected") {
      this.mark("keys");
      clearTimeout(this.limit);
      this.state(this.alone ? "talking; the others do not hear this one" : this === following?.through ? "talking; the others are heard through this one" : "talking");
    } else if (connectionState === "failed") {
      this.hangUp(`the call failed: ${iceConnectionState === "failed" ? "no path between the two ends answered" : "no keys were agreed on"}`);
    } else if (connectionState !== "closed") {
      this.state(LEGS[iceConnectionState] ?? iceConnectionState);
    }
    show();
  }

  // Notes when the call got so far, and tells what the beginning took once sound comes, in milliseconds.
  mark(what) {
    this.marks[what] ??= performance.now();
    if (what !== "sound") return;
    if (this.waits) hearThrough(this);
    const since = (start, end) => (start === undefined || end === undefined ? null : Math.round(end - start));
    const legs = ["ringing", "microphone", "answered", "path", "keys", "sound"];
    const took = legs.map((leg) => [`${leg}_ms`, since(this.marks.began, this.marks[leg])]);
    took.push(["ring_to_sound_ms", since(this.marks.ringing, this.marks.sound)]);
    document.body.dataset.setUp = JSON.stringify(Object.fromEntries(took));
  }

  // Nothing connects for ever: the legs before this one have their limits in the node.
  limited() {
    this.limit = setTimeout(() => this.hangUp("the call failed: no path, or no keys, within 30 s"), 30_000);
  }

  // Opens the microphone while the call begins: nothing waits for it.
  speak(sender) {
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    microphone ??= navigator.mediaDevices.getUserMedia({ audio });
    this.sender = sender;
    microphone
      .then((stream) => {
        this.mark("microphone");
        return this.over || this.waits || sender.replaceTrack(stream.getAudioTracks()[0]);
      })
      .catch((e) => this.hangUp(`no microphone: ${words(e)}`));
  }

  end(why) {
    if (this.over) return;
    // Before this one is gone, so that there is always a call.
    if (following?.through === this) {
      following.tried.add(this.whom);
      following.through = null;
      followNext();
    } else if (this.waits && following && !following.through) followNext();
    clearInterval(this.timer);
    clearTimeout(this.limit);
    this.pc?.close();
    this.person.remove();
    calls.delete(this);
    if (calls.size === 0) {
      following = null;
      delete document.body.dataset.mixed;
      microphone?.then((stream) => stream.getTracks().forEach((track) => track.stop())).catch(() => {});
      microphone = null;
    }
    fail(why);
    show();
  }

  async hangUp(why) {
    if (this.over) return;
    this.end(why ?? "");
    if (this.id !== undefined) await api("bye", { id: this.id }).catch(() => {});
  }

  // News of it.
  async happened(event) {
    switch (event.kind) {
      case "ringing":
        this.mark("ringing");
        return this.state("ringing");
      case "described":
        this.part("digits").textContent = event.digits;
        this.part("peer").textContent = event.key;
        return;
      case "answered":
        this.mark("answered");
        this.limited();
        this.alone = this.group?.members.length > 0 && !event.joins;
        await this.pc.setRemoteDescription({ type: "answer", sdp: event.sdp });
        return this.state("looking for a path");
      case "way":
        this.relays = event.relays;
        document.body.dataset.relays = event.relays.join(" ");
        return;
      case "host":
        return follow(this, event);
      case "away":
        return following?.through === this ? followNext() : undefined;
      case "group":
        for (const key of event.call) dial(key, null, event.group, performance.now() + PATIENCE_MS);
        return;
      case "failed":
        // It may say yes later to who invited us both, of which nobody tells us.
        if (this.until > performance.now() && event.why.startsWith("refused")) {
          const { whom, group, until, waits } = this;
          setTimeout(() => calls.size > 0 && dial(whom, null, group, until, waits), AGAIN_MS);
          this.waits = false;
          return this.end("");
        }
        return this.end(event.why);
      case "ended":
        return this.end(event.why);
    }
  }

  // Asked once a second: whether who mixes for us still sends.
  quiet(packets) {
    const silent = packets === this.silence.packets;
    this.silence = { packets, seconds: silent ? this.silence.seconds + 1 : 0 };
    // And again, should nobody have answered.
    if (this.silence.seconds % 4 === QUIET_SECONDS && following?.through === this) followNext();
  }

  async figures() {
    if (this.pc?.connectionState !== "connected") {
      if (this === following?.through) this.quiet(this.silence.packets);
      return;
    }
    const report = await this.pc.getStats();
    const by = new Map();
    for (const s of report.values()) by.set(s.id, s);
    const all = [...by.values()];
    const transport = all.find((s) => s.type === "transport");
    const pair = by.get(transport?.selectedCandidatePairId) ?? all.find((s) => s.type === "candidate-pair" && s.nominated);
    const inbound = all.find((s) => s.type === "inbound-rtp" && s.kind === "audio");
    this.quiet(inbound?.packetsReceived ?? 0);
    const kinds = [by.get(pair?.localCandidateId)?.candidateType, by.get(pair?.remoteCandidateId)?.candidateType];
    const relayed = this.relays ? this.relays.length > 0 : kinds.includes("relay");
    const rtt = pair?.currentRoundTripTime;
    const lost = inbound ? (100 * inbound.packetsLost) / Math.max(1, inbound.packetsLost + inbound.packetsReceived) : 0;
    const buffer = inbound?.jitterBufferEmittedCount ? inbound.jitterBufferDelay / inbound.jitterBufferEmittedCount : 0;
    const seconds = (performance.now() - (this.marks.sound ?? this.marks.began)) / 1000;
    const rate = inbound ? (8 * inbound.bytesReceived) / seconds / 1000 : 0;
    const told = [relayed ? ["relayed", ...(this.relays ?? [])].join(" by ") : "direct"];
    if (rtt !== undefined) told.push(`RTT ${Math.round(rtt * 1000)} ms`);
    told.push(`loss ${lost.toFixed(1)} %`, `${rate.toFixed(0)} kbit/s in`);
    if (rtt !== undefined) told.push(`mouth to ear ${Math.round(1000 * (0.0265 + rtt / 2 + buffer))} ms`);
    this.part("figures").textContent = told.join(", ");
    Object.assign(document.body.dataset, { via: relayed ? "relay" : "direct", received: inbound?.packetsReceived ?? 0, lost: inbound?.packetsLost ?? 0 });
  }
}

// A connection to the other end. With `carried` the node has the ways.
async function connection(carried) {
  // Relays come and go, and their credentials hold for an hour.
  if (!carried) config = await api("config");
  return new RTCPeerConnection({ iceServers: carried ? [] : config.ice });
}

function gathered(pc) {
  return new Promise((resolve) => {
    const done = () => pc.iceGatheringState === "complete" && resolve();
    pc.onicegatheringstatechange = done;
    // A second relay may answer at once; a third, or one that is dead, is not waited for.
    pc.onicecandidate = ({ candidate }) => candidate?.type === "relay" && setTimeout(resolve, SECOND_MS);
    setTimeout(resolve, GATHER_MS);
    done();
  });
}

// Calls somebody; as a member of a group until some time, as long as it is refused. With `waits` it is neither heard nor told
// anything before `hearThrough`.
async function dial(whom, expect, group, until, waits = false) {
  const call = new Call("calling");
  Object.assign(call, { whom, group, until, waits });
  try {
    const carried = config.names && !whom.includes(":");
    call.use(await connection(carried));
    call.speak(call.pc.addTransceiver("audio", { direction: "sendrecv" }).sender);
    await call.pc.setLocalDescription(await call.pc.createOffer());
    if (!carried) await gathered(call.pc);
    const { id } = await api("call", { whom, expect: expect || null, sdp: call.pc.localDescription.sdp, group: group ?? null });
    // Hung up meanwhile.
    if (call.over) return void api("bye", { id }).catch(() => {});
    call.id = id;
    for (const event of early.splice(0)) await happened(event);
  } catch (error) {
    call.end(words(error));
  }
}

// Calls several at once: each hears all.
async function gather(names) {
  const { id, members } = await api("group", { whom: names });
  const others = [...new Set(members)].filter((key) => key !== config.key);
  for (const key of others) dial(key, null, { id, members });
}

// Others mix for the group that a call is of: we hear all through the first of them who is there.
function follow(call, { group, hosts, caller }) {
  // In several calls nobody may say whom else we call.
  if (calls.size > 1 && following?.through !== call) return;
  call.whom = caller;
  following = { group, hosts, through: call, tried: new Set() };
  document.body.dataset.mixed = caller;
  call.changed();
  if (hosts[0] !== caller) followNext();
}

// Calls the next one who may mix.
function followNext() {
  const { hosts, tried, group, through } = following;
  const next = hosts.find((key) => !tried.has(key) && key !== through?.whom);
  if (next === undefined) return;
  tried.add(next);
  dial(next, null, group, performance.now() + TOLD_SOON_MS, true);
}

// A call with one who mixes has sound: all goes by it from now on.
function hearThrough(call) {
  const before = following?.through;
  call.waits = call.audio.muted = false;
  if (!following) return;
  following.through = call;
  document.body.dataset.mixed = call.whom;
  call.speak(call.sender);
  call.changed();
  for (const other of [...calls]) if (other === before || (other !== call && other.waits)) other.hangUp();
}

// What can be done before the user has said yes: no microphone, and nothing is sent.
async function prepare(sdp, carried) {
  const pc = await connection(carried);
  await pc.setRemoteDescription({ type: "offer", sdp });
  return pc;
}

async function take({ id, carried }, prepared) {
  const call = new Call("answering");
  call.id = id;
  call.limited();
  call.mark("ringing");
  try {
    call.use(await prepared);
    const [transceiver] = call.pc.getTransceivers();
    if (!transceiver) throw new Error("the other end offers no sound");
    transceiver.direction = "sendrecv";
    call.speak(transceiver.sender);
    await call.pc.setLocalDescription(await call.pc.createAnswer());
    if (!carried) await gathered(call.pc);
    await api("answer", { id, sdp: call.pc.localDescription.sdp });
    call.mark("answered");
  } catch (error) {
    call.hangUp(words(error));
  }
}

// News of calls that are being placed, whose numbers are not known yet.
const early = [];

async function happened(event) {
  const call = [...calls].find((call) => call.id === event.id);
  if (call) {
    await call.happened(event).catch((e) => call.hangUp(`the call failed: ${words(e)}`));
  } else if (waiting?.id === event.id) {
    noLonger()?.then((pc) => pc.close()).catch(() => {});
  } else if ([...calls].some((call) => call.id === undefined)) {
    early.push(event);
  }
}

// The call that rang is taken, refused or over.
function noLonger() {
  const prepared = waiting?.prepared;
  waiting = null;
  show();
  return prepared;
}

function incoming(event) {
  const { id, key, sdp, carried, named } = event;
  const prepared = () => prepare(sdp, carried);
  // Somebody whom the user said yes to has named him.
  if (named && calls.size > 0) return void take(event, prepared());
  // One at a time.
  if (calls.size > 0 || waiting) return void api("refuse", { id }).catch(() => {});
  waiting = { id, prepared: prepared() };
  waiting.prepared.catch(() => {});
  $("caller").textContent = key;
  show();
  $("accept").onclick = () => {
    const pc = noLonger();
    if (pc) take(event, pc);
  };
  $("reject").onclick = () => {
    noLonger()?.then((pc) => pc.close()).catch(() => {});
    api("refuse", { id }).catch(() => {});
  };
}

async function listen() {
  let since = 0;
  for (;;) {
    try {
      const { events, next } = await api(`events?since=${since}`);
      since = next;
      for (const event of events) {
        if (event.kind === "incoming") incoming(event);
        else await happened(event);
      }
    } catch (error) {
      fail(`the node does not answer: ${words(error)}`);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

$("dial").onsubmit = (event) => {
  event.preventDefault();
  fail("");
  const names = $("whom").value.split(/[\s,]+/).filter(Boolean);
  if (names.length > 1) gather(names).catch((e) => fail(words(e)));
  else if (names.length === 1) dial(names[0], $("expect").value.trim());
};
$("hangup").onclick = () => {
  following = null;
  [...calls].forEach((call) => call.hangUp());
};

try {
  config = await api("config");
  $("key").textContent = config.key;
  show();
  listen();
} catch (error) {
  fail(`${words(error)} (open the address that shoal printed, with what follows #)`);
}
