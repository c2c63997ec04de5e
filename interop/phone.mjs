// Headless Chromium at the page of `shoal phone`: calls, answers, prints what it sees.
//
//   node phone.mjs MODULES CHROMIUM URL VOICE.wav
//
// Reads commands, one JSON object a line, and prints an object for each: `{"do":"call","whom":"bob","seconds":5}`,
// `{"do":"answer","seconds":5,"stay":true}`. So long is talked; then it hangs up, or with `stay` the other end must. Says "ready" on
// stderr when it waits to be called. With `people` it waits until it talks to so many, and with `after` it
// hangs up so many seconds later, for others to see as much. Ends with its input.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [modules, executablePath, url, voice] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "x.js"))("playwright-core");
const folder = mkdtempSync(join(tmpdir(), "shoal-phone-"));

// In the page, before its own script: keeps its connections, for their statistics, and tells how its calls stand.
function watch() {
  document.addEventListener("DOMContentLoaded", () => {
    const told = new MutationObserver((changes) => {
      for (const { attributeName: name } of changes) console.log(name, document.body.getAttribute(name));
    });
    told.observe(document.body, { attributeFilter: ["data-state", "data-relays", "data-mixed"] });
  });
  window.connections = [];
  const Real = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(...config) {
      super(...config);
      window.connections.push(this);
    }
  };
}

// In the page: how long no packet came, at most, and how much sound was made up in the worst second and the next, both in
// milliseconds; looked at until told otherwise.
function listen() {
  const heard = { gap_ms: 0, made_up_ms: 0, samples: [] };
  let [packets, since, last] = [0, performance.now(), null];
  const look = async () => {
    const pc = window.connections.at(-1);
    // Another one begins to count.
    if (pc !== last) [packets, last] = [0, pc];
    const stats = pc?.connectionState === "connected" ? [...(await pc.getStats()).values()] : [];
    const inbound = stats.find((s) => s.type === "inbound-rtp" && s.kind === "audio");
    const now = performance.now();
    if (!inbound) return;
    if (inbound.packetsReceived > packets) [packets, since] = [inbound.packetsReceived, now];
    heard.gap_ms = Math.max(heard.gap_ms, Math.round(now - since));
    // Without a tail: what is made up in pauses that the other end did not send is silence, which counts as such.
    if (inbound.concealedSamples < heard.samples.at(-1)?.[1]) heard.samples = [];
    heard.samples.push([now, inbound.concealedSamples]);
    while (heard.samples[0][0] < now - 2000) heard.samples.shift();
    heard.made_up_ms = Math.max(heard.made_up_ms, Math.round((inbound.concealedSamples - heard.samples[0][1]) / 48));
  };
  window.heard = heard;
  window.looking = setInterval(look, 20);
}

async function open() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  args.push("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required");
  // The tests have no other interface.
  args.push("--allow-loopback-in-peer-connection", `--use-file-for-fake-audio-capture=${voice}`);
  const context = await chromium.launchPersistentContext(folder, { executablePath, headless: true, args, permissions: ["microphone"] });
  const page = context.pages()[0] ?? (await context.newPage());
  page.on("pageerror", (e) => console.error(String(e)));
  page.on("console", (message) => console.error(message.text()));
  await page.addInitScript(watch);
  await page.goto(url);
  await state(page, "idle", 15_000);
  return { context, page };
}

const state = (page, wanted, timeout) => page.waitForFunction((w) => document.body.dataset.state === w, wanted, { timeout });

// In the page: with whom it talks, and how loud each is, at most, in two seconds.
async function people() {
  const context = new AudioContext();
  const seen = [...document.querySelectorAll("#people li")].map((person) => {
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(person.querySelector("audio").srcObject).connect(analyser);
    const text = (name) => person.querySelector(`.${name}`).textContent;
    return { analyser, told: { digits: text("digits"), peer: text("peer"), figures: text("figures"), level: 0 } };
  });
  const samples = new Float32Array(2048);
  for (let i = 0; i < 40; i++) {
    // As often as the analysers have new samples.
    await new Promise((r) => setTimeout(r, 50));
    for (const { analyser, told } of seen) {
      analyser.getFloatTimeDomainData(samples);
      for (const s of samples) told.level = Math.max(told.level, Math.abs(s));
    }
  }
  await context.close();
  return seen.map(({ told }) => told);
}

async function talk(page, command, started) {
  await page.waitForFunction((n) => Number(document.body.dataset.talking) >= n, command.people ?? 1, { timeout: 60_000 });
  const setup_ms = Date.now() - started;
  await page.evaluate(listen);
  // So long is talked.
  await new Promise((resolve) => setTimeout(resolve, command.seconds * 1000));
  const seen = await page.evaluate(people);
  const heard = await page.evaluate(() => {
    clearInterval(window.looking);
    const { gap_ms, made_up_ms } = window.heard;
    return { gap_ms, made_up_ms };
  });
  const { setUp, ...data } = await page.evaluate(() => ({ ...document.body.dataset }));
  if (command.after) await new Promise((resolve) => setTimeout(resolve, command.after * 1000));
  if (!command.stay) await page.click("#hangup");
  await state(page, "idle", command.stay ? 60_000 : 10_000);
  return { setup_ms, set_up: setUp ? JSON.parse(setUp) : null, people: seen, ...seen[0], ...heard, ...data };
}

async function obey(page, command) {
  if (command.do === "call") {
    const started = Date.now();
    await page.fill("#whom", command.whom);
    await page.click("#call");
    return talk(page, command, started);
  }
  // Said yes at once: a person would take longer than all the rest.
  await page.evaluate(() => {
    const yes = new MutationObserver(() => {
      if (document.body.dataset.state !== "ringing") return;
      yes.disconnect();
      document.getElementById("accept").click();
    });
    yes.observe(document.body, { attributes: true });
  });
  console.error("ready");
  await page.waitForFunction(() => ["answering", "calling", "talking"].includes(document.body.dataset.state), null, { timeout: 120_000 });
  return talk(page, command, Date.now());
}

try {
  const { context, page } = await open();
  console.error("open");
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await obey(page, JSON.parse(line))));
  }
  await context.close();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
