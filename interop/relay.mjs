// Two ends in headless Chromium that may meet through a TURN relay only; prints what their data channel carried.
//
//   node relay.mjs MODULES CHROMIUM URL USERNAME PASSWORD MESSAGES BYTES
//
// URL is one that RTCPeerConnection takes: turn:HOST:PORT?transport=udp. Each message comes back and is compared. Prints one JSON
// object.

import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [modules, executablePath, urls, username, credential, messages, bytes] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "x.js"))("playwright-core");
const folder = mkdtempSync(join(tmpdir(), "shoal-relay-"));

// Runs in the page.
async function meet({ server, messages, bytes }) {
  const ends = [0, 1].map(() => new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: "relay" }));
  ends.forEach((end, i) => {
    end.onicecandidate = ({ candidate }) => candidate && ends[1 - i].addIceCandidate(candidate);
  });
  const [here, there] = ends;
  there.ondatachannel = ({ channel }) => {
    channel.binaryType = "arraybuffer";
    channel.onmessage = ({ data }) => channel.send(data);
  };
  const channel = here.createDataChannel("echo");
  channel.binaryType = "arraybuffer";
  const began = performance.now();
  const result = { echoed: 0, wrong: 0 };
  const over = new Promise((resolve, reject) => {
    // A limit, not a pause: who waits for ever tells nothing.
    const timer = setTimeout(() => reject(new Error(`after 40 s: ${here.iceConnectionState}, ${result.echoed} of ${messages} came back`)), 40_000);
    let begin;
    const send = () => {
      const data = new Uint8Array(bytes).fill(result.echoed % 251);
      channel.send(data);
    };
    channel.onopen = () => {
      result.open_ms = Math.round(performance.now() - began);
      begin = performance.now();
      send();
    };
    channel.onmessage = ({ data }) => {
      const got = new Uint8Array(data);
      const fits = got.length === bytes && got.every((b) => b === result.echoed % 251);
      if (!fits) result.wrong++;
      result.echoed++;
      if (result.echoed < messages) return send();
      result.round_trip_ms = (performance.now() - begin) / messages;
      clearTimeout(timer);
      resolve();
    };
  });
  await here.setLocalDescription(await here.createOffer());
  await there.setRemoteDescription(here.localDescription);
  await there.setLocalDescription(await there.createAnswer());
  await here.setRemoteDescription(there.localDescription);
  await over;
  const stats = [...(await here.getStats()).values()];
  const transport = stats.find((s) => s.type === "transport");
  const pair = stats.find((s) => s.id === transport.selectedCandidatePairId);
  const candidate = (id) => stats.find((s) => s.id === id);
  result.local = candidate(pair.localCandidateId).candidateType;
  result.remote = candidate(pair.remoteCandidateId).candidateType;
  result.protocol = candidate(pair.localCandidateId).relayProtocol;
  ends.forEach((end) => end.close());
  return result;
}

async function main() {
  const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  // The tests have no other interface.
  args.push("--allow-loopback-in-peer-connection");
  const context = await chromium.launchPersistentContext(folder, { executablePath, headless: true, args });
  const page = context.pages()[0] ?? (await context.newPage());
  const server = { urls, username, credential };
  const result = await page.evaluate(meet, { server, messages: Number(messages), bytes: Number(bytes) });
  await context.close();
  return result;
}

try {
  console.log(JSON.stringify(await main()));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
