// Two ends of a call in headless Chromium, or one beside a native end: opens pages, calls, answers, prints what it sees.
//
//   node phone.mjs MODULES CHROMIUM CALLEE_URL|- CALLER_URL|- WHOM SECONDS [VOICE.wav [stay]]
//
// CALLEE_URL answers what comes in; CALLER_URL calls WHOM. Hangs up in the end; with `stay` the other end does. Prints one JSON
// object.

import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [modules, executablePath, calleeUrl, callerUrl, whom, seconds, voice, stay] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "x.js"))("playwright-core");
const folder = mkdtempSync(join(tmpdir(), "shoal-phone-"));

async function open(name, url) {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  args.push("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required");
  // The tests have no other interface.
  args.push("--allow-loopback-in-peer-connection");
  if (voice) args.push(`--use-file-for-fake-audio-capture=${voice}`);
  const context = await chromium.launchPersistentContext(join(folder, name), { executablePath, headless: true, args, permissions: ["microphone"] });
  const page = context.pages()[0] ?? (await context.newPage());
  page.on("pageerror", (e) => console.error(`${name}: ${e}`));
  await page.goto(url);
  await page.waitForFunction(() => document.body.dataset.state === "idle", null, { timeout: 15_000 });
  return { context, page };
}

const state = (page, wanted, timeout) => page.waitForFunction((w) => document.body.dataset.state === w, wanted, { timeout });
const text = (page, id) => page.textContent(`#${id}`);

async function main() {
  const callee = calleeUrl === "-" ? null : await open("callee", calleeUrl);
  const caller = callerUrl === "-" ? null : await open("caller", callerUrl);
  const started = Date.now();
  if (caller) {
    await caller.page.fill("#whom", whom);
    await caller.page.click("#call");
  }
  if (callee) {
    // A native caller begins by itself.
    console.error("ready");
    await state(callee.page, "ringing", 60_000);
    await callee.page.click("#accept");
  }
  const ends = [caller, callee].filter(Boolean);
  const result = {};
  for (const end of ends) await state(end.page, "talking", 30_000);
  result.setup_ms = Date.now() - started;
  // So long is talked.
  await new Promise((resolve) => setTimeout(resolve, Number(seconds) * 1000));
  result.ends = [];
  for (const { page } of ends) {
    const level = await page.evaluate(async () => {
      // How loud it is in the loudspeaker.
      const context = new AudioContext();
      const source = context.createMediaStreamSource(document.getElementById("speaker").srcObject);
      const analyser = context.createAnalyser();
      source.connect(analyser);
      let loudest = 0;
      const samples = new Float32Array(analyser.fftSize);
      for (let i = 0; i < 40; i++) {
        // The loudest of two seconds, looked at as often as the analyser has new samples.
        await new Promise((r) => setTimeout(r, 50));
        analyser.getFloatTimeDomainData(samples);
        for (const s of samples) loudest = Math.max(loudest, Math.abs(s));
      }
      await context.close();
      return loudest;
    });
    const data = await page.evaluate(() => ({ ...document.body.dataset }));
    result.ends.push({ digits: await text(page, "digits"), peer: await text(page, "peer"), figures: await text(page, "figures"), level, ...data });
  }
  if (!stay) await ends[0].page.click("#hangup");
  for (const end of ends) await state(end.page, "idle", stay ? 60_000 : 10_000);
  for (const end of ends) await end.context.close();
  return result;
}

try {
  console.log(JSON.stringify(await main()));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
