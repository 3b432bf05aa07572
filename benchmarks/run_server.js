// nodemailer's smtp-server, throwing mail away: node run_server.js MODULES PORT CERTIFICATE WAY
//
// MODULES is where npm has installed it. It has its own defaults, but for the name of each client,
// for which it would ask the DNS. Run by `servers_and_clients.py`.

"use strict";

const fs = require("node:fs");
const { createRequire } = require("node:module");

const [modules, port, certificate, way] = process.argv.slice(2);
const { SMTPServer } = createRequire(`${modules}/`)("smtp-server");

const pem = fs.readFileSync(certificate);
const server = new SMTPServer({
  name: "server.example.test",
  disableReverseLookup: true,
  disabledCommands: [
    ...(way === "starttls" ? [] : ["STARTTLS"]),
    ...(way === "login" ? [] : ["AUTH"]),
  ],
  allowInsecureAuth: true,
  authOptional: true,
  key: pem,
  cert: pem,
  onAuth(auth, session, callback) {
    callback(null, { user: auth.username });
  },
  onData(stream, session, callback) {
    stream.on("end", callback);
    stream.resume();
  },
});
server.on("error", () => {}); // of one connection; who sends notices
server.listen(Number(port), "127.0.0.1");
