// nodemailer as a client: node run_client.js MODULES PORT BEFORE MESSAGES SESSIONS RECIPIENTS FILE WAY
//
// MODULES is where npm has installed it, FILE the message. What it prints is what run_client.py
// does. Run by `servers_and_clients.py`.

"use strict";

const fs = require("node:fs");
const { createRequire } = require("node:module");

const [modules, ...others] = process.argv.slice(2);
const way = others.pop();
const file = others.pop();
const [port, before, messages, sessions, recipients] = others.map(Number);
const nodemailer = createRequire(`${modules}/`)("nodemailer");

const raw = fs.readFileSync(file);
const to = Array.from({ length: recipients }, (_, number) => `recipient${number}@example.test`);

async function send(count) {
  const transport = nodemailer.createTransport({
    host: "127.0.0.1",
    port,
    name: "client.example.test",
    ignoreTLS: true,
    pool: true,
    maxConnections: sessions,
    maxMessages: way === "reconnect" ? 1 : Infinity,
  });
  let left = count;
  let accepted = 0;
  // As many wait at a time as there are connections: a queue of thousands would be measured, too.
  async function session() {
    while (left-- > 0) {
      const envelope = { from: "sender@example.test", to };
      const told = await transport.sendMail({ envelope, raw });
      if (told.accepted.length === recipients) accepted += 1;
    }
  }
  await Promise.all(Array.from({ length: sessions }, session));
  transport.close();
  return accepted;
}

function peak() {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(fs.readFileSync("/proc/self/status", "utf8"));
  return Number(line[1]) * 1024;
}

async function main() {
  if (before) await send(before);
  const began = process.hrtime.bigint();
  const used = process.cpuUsage();
  const accepted = await send(messages);
  const { user, system } = process.cpuUsage(used);
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  console.log(JSON.stringify({
    messages: accepted, seconds, cpu: (user + system) / 1e6, peak: peak(),
  }));
}

main();
