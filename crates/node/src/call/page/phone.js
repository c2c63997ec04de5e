// The browser's end of a call: it has microphone, loudspeaker and WebRTC; the node that serves this page has the key,
// carries offer and answer, signs and checks them. In calls by name or key it carries the sound too: then the browser's
// only way is to its node, and nothing is to be gathered.

const token = location.hash.slice(1);
const $ = (id) => document.getElementById(id);
// Calls by address: how long candidates are gathered, which is what a relay takes; and what a second one gets after the first.
const GATHER_MS = 2500;
const SECOND_MS = 200;
const LEGS = { new: "waiting", checking: "looking for a path", connected: "agreeing on keys", completed: "agreeing on keys" };

let call = null; // {id, pc, microphone, timer, limit, marks, relays}
let waiting = null; // a connection for the call that rings
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

function state(text) {
  $("state").textContent = text;
}

function close({ pc, microphone }) {
  pc.close();
  microphone?.then((stream) => stream.getTracks().forEach((track) => track.stop())).catch(() => {});
}

function end(why) {
  if (!call) return;
  clearInterval(call.timer);
  clearTimeout(call.limit);
  close(call);
  call = null;
  $("talk").hidden = true;
  $("dial").hidden = false;
  document.body.dataset.state = "idle";
  fail(why);
}

// A connection to the other end. With `carried` the node has the ways.
async function connection(carried) {
  // Relays come and go, and their credentials hold for an hour.
  if (!carried) config = await api("config");
  const pc = new RTCPeerConnection({ iceServers: carried ? [] : config.ice });
  const ends = { pc, microphone: null, marks: {}, relays: null };
  pc.ontrack = ({ track }) => {
    $("speaker").srcObject = new MediaStream([track]);
    // W3C WebRTC, 5.3: a remote track is muted until its first packet comes.
    track.onunmute = () => mark(ends, "sound");
  };
  const show = () => {
    if (!call || call.pc !== pc) return;
    if (pc.connectionState === "connected") {
        clearTimeout(call.limit);
      state("talking");
      document.body.dataset.state = "talking";
    } else if (pc.connectionState === "failed") {
      const leg = pc.iceConnectionState === "failed" ? "no path between the two ends answered" : "no keys were agreed on";
      hangUp(`the call failed: ${leg}`);
    } else if (pc.connectionState !== "closed") {
      state(LEGS[pc.iceConnectionState] ?? pc.iceConnectionState);
    }
  };
  pc.onconnectionstatechange = show;
  pc.oniceconnectionstatechange = show;
  return ends;
}

// Notes when the call got so far, and tells what the beginning took once sound comes, in milliseconds.
function mark(ends, what) {
  ends.marks[what] ??= performance.now();
  const { began, ringing, answered, sound } = ends.marks;
  if (what !== "sound" || began === undefined) return;
  const since = (start, end) => (start === undefined || end === undefined ? null : Math.round(end - start));
  const took = { ringing_ms: since(began, ringing), answered_ms: since(began, answered), sound_ms: since(began, sound) };
  document.body.dataset.setUp = JSON.stringify({ ...took, ring_to_sound_ms: since(ringing, sound) });
}

// Opens the microphone while the call begins: nothing waits for it.
function listenTo(ends, sender) {
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  ends.microphone = navigator.mediaDevices.getUserMedia({ audio });
  ends.microphone
    .then((stream) => sender.replaceTrack(stream.getAudioTracks()[0]))
    .catch((e) => ends.pc.signalingState !== "closed" && hangUp(`no microphone: ${e.message ?? e}`));
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

// Nothing connects for ever: the legs before this one have their limits in the node.
function limit(ends) {
  ends.limit = setTimeout(() => call === ends && hangUp("the call failed: no path, or no keys, within 30 s"), 30_000);
}

function begin(ends, text) {
  call = ends;
  delete document.body.dataset.relays;
  mark(call, "began");
  call.timer = setInterval(figures, 1000);
  fail("");
  $("dial").hidden = true;
  $("talk").hidden = false;
  $("digits").textContent = "…";
  $("peer").textContent = "…";
  $("figures").textContent = "";
  state(text);
  document.body.dataset.state = "calling";
}

async function figures() {
  if (!call || call.pc.connectionState !== "connected") return;
  const report = await call.pc.getStats();
  const by = new Map();
  for (const s of report.values()) by.set(s.id, s);
  const all = [...by.values()];
  const transport = all.find((s) => s.type === "transport");
  const pair = by.get(transport?.selectedCandidatePairId) ?? all.find((s) => s.type === "candidate-pair" && s.nominated);
  const inbound = all.find((s) => s.type === "inbound-rtp" && s.kind === "audio");
  const kinds = [by.get(pair?.localCandidateId)?.candidateType, by.get(pair?.remoteCandidateId)?.candidateType];
  const relayed = call.relays ? call.relays.length > 0 : kinds.includes("relay");
  const rtt = pair?.currentRoundTripTime;
  const lost = inbound ? (100 * inbound.packetsLost) / Math.max(1, inbound.packetsLost + inbound.packetsReceived) : 0;
  const buffer = inbound?.jitterBufferEmittedCount ? inbound.jitterBufferDelay / inbound.jitterBufferEmittedCount : 0;
  const seconds = (performance.now() - call.marks.began) / 1000;
  const rate = inbound ? (8 * inbound.bytesReceived) / seconds / 1000 : 0;
  const ear = rtt === undefined ? null : 1000 * (0.0265 + rtt / 2 + buffer);
  const words = [relayed ? ["relayed", ...(call.relays ?? [])].join(" by ") : "direct"];
  if (rtt !== undefined) words.push(`RTT ${Math.round(rtt * 1000)} ms`);
  words.push(`loss ${lost.toFixed(1)} %`, `${rate.toFixed(0)} kbit/s in`);
  if (ear !== null) words.push(`mouth to ear ${Math.round(ear)} ms`);
  $("figures").textContent = words.join(", ");
  Object.assign(document.body.dataset, { via: relayed ? "relay" : "direct", received: inbound?.packetsReceived ?? 0, lost: inbound?.packetsLost ?? 0 });
}

async function dial(whom, expect) {
  if (call) return;
  const carried = config.names && !whom.includes(":");
  begin(await connection(carried), "calling");
  const ends = call;
  try {
    listenTo(ends, ends.pc.addTransceiver("audio", { direction: "sendrecv" }).sender);
    await ends.pc.setLocalDescription(await ends.pc.createOffer());
    if (!carried) await gathered(ends.pc);
    const { id } = await api("call", { whom, expect: expect || null, sdp: ends.pc.localDescription.sdp });
    ends.id = id;
    // Hung up meanwhile.
    if (call !== ends) return void api("bye", { id }).catch(() => {});
    early.splice(0).forEach(happened);
  } catch (error) {
    if (call === ends) end(String(error.message ?? error));
  }
}

// What can be done before the user has said yes: no microphone, and nothing is sent.
async function prepare(sdp, carried) {
  const ends = await connection(carried);
  await ends.pc.setRemoteDescription({ type: "offer", sdp });
  return ends;
}

async function take(id, prepared, carried) {
  const ends = await prepared;
  ends.id = id;
  begin(ends, "answering");
  limit(ends);
  mark(ends, "ringing");
  try {
    const [transceiver] = ends.pc.getTransceivers();
    if (!transceiver) throw new Error("the other end offers no sound");
    transceiver.direction = "sendrecv";
    listenTo(ends, transceiver.sender);
    await ends.pc.setLocalDescription(await ends.pc.createAnswer());
    if (!carried) await gathered(ends.pc);
    await api("answer", { id, sdp: ends.pc.localDescription.sdp });
    mark(ends, "answered");
  } catch (error) {
    if (call === ends) end(String(error.message ?? error));
  }
}

async function hangUp(why) {
  const id = call?.id;
  end(why ?? "");
  if (id !== undefined) await api("bye", { id }).catch(() => {});
}

const handlers = {
  ringing() {
    mark(call, "ringing");
    state("ringing");
  },
  async answered({ sdp }) {
    mark(call, "answered");
    limit(call);
    await call.pc.setRemoteDescription({ type: "answer", sdp });
    state("looking for a path");
  },
  described({ digits, key }) {
    $("digits").textContent = digits;
    $("peer").textContent = key;
  },
  way({ relays }) {
    call.relays = relays;
    document.body.dataset.relays = relays.join(" ");
  },
  failed: ({ why }) => end(why),
  ended: ({ why }) => end(why),
};

// News of the call that is being placed, whose number is not known yet.
const early = [];

async function happened(event) {
  if (call && event.id === call.id) {
    const of = call;
    const failed = (e) => call === of && hangUp(`the call failed: ${e.message ?? e}`);
    await Promise.resolve(handlers[event.kind]?.(event)).catch(failed);
  } else if (call && call.id === undefined) early.push(event);
  else if (waiting?.id === event.id) noLonger()?.then(close).catch(() => {});
}

// The call that rang is taken, refused or over.
function noLonger() {
  const ends = waiting?.prepared;
  waiting = null;
  $("incoming").hidden = true;
  if (!call) document.body.dataset.state = "idle";
  return ends;
}

function incoming({ id, key, sdp, carried }) {
  // One call at a time.
  if (call || waiting) return void api("refuse", { id }).catch(() => {});
  waiting = { id, prepared: prepare(sdp, carried) };
  waiting.prepared.catch(() => {});
  $("caller").textContent = key;
  $("incoming").hidden = false;
  document.body.dataset.state = "ringing";
  $("accept").onclick = () => {
    const prepared = noLonger();
    if (prepared) take(id, prepared, carried).catch((e) => fail(String(e.message ?? e)));
  };
  $("reject").onclick = () => {
    noLonger()?.then(close).catch(() => {});
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
      fail(`the node does not answer: ${error.message ?? error}`);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

$("dial").onsubmit = (event) => {
  event.preventDefault();
  fail("");
  dial($("whom").value.trim(), $("expect").value.trim()).catch((e) => fail(String(e.message ?? e)));
};
$("hangup").onclick = () => hangUp();

try {
  config = await api("config");
  $("key").textContent = config.key;
  document.body.dataset.state = "idle";
  listen();
} catch (error) {
  fail(`${error.message ?? error} (open the address that shoal printed, with what follows #)`);
}
