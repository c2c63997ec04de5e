// The browser's end of a call: it has microphone, loudspeaker and WebRTC; the node that serves this page has the key,
// carries offer and answer, signs and checks them.

const token = location.hash.slice(1);
const $ = (id) => document.getElementById(id);
// How long candidates are gathered: what a relay takes, and no more; and what a second one gets after the first.
const GATHER_MS = 2500;
const SECOND_MS = 200;
const LEGS = { new: "waiting", checking: "looking for a path", connected: "agreeing on keys", completed: "agreeing on keys" };

let call = null; // {id, pc, stream, timer, started}
let config = { iceServers: [] };

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

function end(why) {
  if (!call) return;
  clearInterval(call.timer);
  clearTimeout(call.limit);
  call.pc.close();
  for (const track of call.stream.getTracks()) track.stop();
  call = null;
  $("talk").hidden = true;
  $("dial").hidden = false;
  document.body.dataset.state = "idle";
  fail(why);
}

async function connection() {
  // Relays come and go, and their credentials hold for an hour.
  config = { iceServers: (await api("config")).ice };
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  const pc = new RTCPeerConnection(config);
  for (const track of stream.getAudioTracks()) pc.addTrack(track, stream);
  pc.ontrack = (event) => { $("speaker").srcObject = event.streams[0] ?? new MediaStream([event.track]); };
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
  return { pc, stream };
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

function begin(id, ends, text) {
  call = { id, ...ends, started: performance.now() };
  call.timer = setInterval(figures, 1000);
  // Nothing connects for ever: every leg before this one has a shorter limit in the node.
  call.limit = setTimeout(() => hangUp("the call failed: no path, or no keys, within 30 s"), 30_000);
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
  const relayed = kinds.includes("relay");
  const rtt = pair?.currentRoundTripTime;
  const lost = inbound ? (100 * inbound.packetsLost) / Math.max(1, inbound.packetsLost + inbound.packetsReceived) : 0;
  const buffer = inbound?.jitterBufferEmittedCount ? inbound.jitterBufferDelay / inbound.jitterBufferEmittedCount : 0;
  const seconds = (performance.now() - call.started) / 1000;
  const rate = inbound ? (8 * inbound.bytesReceived) / seconds / 1000 : 0;
  const ear = rtt === undefined ? null : 1000 * (0.0265 + rtt / 2 + buffer);
  const words = [relayed ? "relayed" : "direct"];
  if (rtt !== undefined) words.push(`RTT ${Math.round(rtt * 1000)} ms`);
  words.push(`loss ${lost.toFixed(1)} %`, `${rate.toFixed(0)} kbit/s in`);
  if (ear !== null) words.push(`mouth to ear ${Math.round(ear)} ms`);
  $("figures").textContent = words.join(", ");
  Object.assign(document.body.dataset, { via: relayed ? "relay" : "direct", received: inbound?.packetsReceived ?? 0, lost: inbound?.packetsLost ?? 0 });
}

async function dial(whom, expect) {
  const ends = await connection();
  try {
    await ends.pc.setLocalDescription(await ends.pc.createOffer());
    await gathered(ends.pc);
    const { id } = await api("call", { whom, expect: expect || null, sdp: ends.pc.localDescription.sdp });
    begin(id, ends, "calling");
  } catch (error) {
    ends.pc.close();
    for (const track of ends.stream.getTracks()) track.stop();
    throw error;
  }
}

async function take(id, sdp) {
  const ends = await connection();
  try {
    await ends.pc.setRemoteDescription({ type: "offer", sdp });
    await ends.pc.setLocalDescription(await ends.pc.createAnswer());
    await gathered(ends.pc);
    begin(id, ends, "answering");
    await api("answer", { id, sdp: ends.pc.localDescription.sdp });
  } catch (error) {
    end(String(error.message ?? error));
    ends.pc.close();
    for (const track of ends.stream.getTracks()) track.stop();
    throw error;
  }
}

async function hangUp(why) {
  const id = call?.id;
  end(why ?? "");
  if (id !== undefined) await api("bye", { id }).catch(() => {});
}

const handlers = {
  ringing: () => state("ringing"),
  async answered({ sdp }) {
    await call.pc.setRemoteDescription({ type: "answer", sdp });
    state("looking for a path");
  },
  described({ digits, key }) {
    $("digits").textContent = digits;
    $("peer").textContent = key;
  },
  failed: ({ why }) => end(why),
  ended: ({ why }) => end(why),
};

function incoming({ id, key, sdp }) {
  // One call at a time.
  if (call || !$("incoming").hidden) return void api("refuse", { id }).catch(() => {});
  $("caller").textContent = key;
  $("incoming").hidden = false;
  document.body.dataset.state = "ringing";
  $("accept").onclick = () => {
    $("incoming").hidden = true;
    take(id, sdp).catch((e) => fail(String(e.message ?? e)));
  };
  $("reject").onclick = () => {
    $("incoming").hidden = true;
    document.body.dataset.state = "idle";
    api("refuse", { id }).catch(() => {});
  };
  $("incoming").dataset.id = id;
}

async function listen() {
  let since = 0;
  for (;;) {
    try {
      const { events, next } = await api(`events?since=${since}`);
      since = next;
      for (const event of events) {
        if (event.kind === "incoming") incoming(event);
        else if (call && event.id === call.id) await handlers[event.kind]?.(event);
        else if (String(event.id) === $("incoming").dataset.id) $("incoming").hidden = true;
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
  const { key, ice } = await api("config");
  $("key").textContent = key;
  config = { iceServers: ice };
  document.body.dataset.state = "idle";
  listen();
} catch (error) {
  fail(`${error.message ?? error} (open the address that shoal printed, with what follows #)`);
}
