// What the @xmpp/client cases share: a client that verifies the server's certificate (NODE_EXTRA_CA_CERTS names the test
// authority) and waits that end. A server may have many places to connect to: every connection is made to the next of them.
import assert from "node:assert/strict";
import { client, xml } from "@xmpp/client";

export { assert, xml };

const PATIENCE = 30_000;
export const password = process.env.XMPP_PASSWORD;
const inTurn = (scheme, ports) => {
  const places = ports.split(" ").map((port) => `${scheme}://localhost:${port}`);
  let turn = 0;
  return () => places[turn++ % places.length];
};
export const services = {
  starttls: inTurn("xmpp", process.env.XMPP_PORTS),
  tls: inTurn("xmpps", process.env.XMPP_TLS_PORTS),
};

export function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${PATIENCE} ms: ${what}`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Waits until something holds.
export async function until(condition, what) {
  for (let n = 0; n < PATIENCE / 20; n++) {
    if (condition()) return;
    await new Promise((wake) => setTimeout(wake, 20));
  }
  throw new Error(`not within ${PATIENCE} ms: ${what}`);
}

// A session with an inbox of stanzas; `next(filter)` takes the first that fits and drops those before it.
export class Session {
  constructor(username, { service = services.starttls, resource = "js", secret = password } = {}) {
    this.xmpp = client({ service: service(), domain: "localhost", resource, username, password: secret });
    // Two seconds for each step are little where other tests run.
    this.xmpp.timeout = PATIENCE;
    this.inbox = [];
    this.waiting = [];
    this.xmpp.on("error", (error) => {
      this.error = error;
    });
    // The library connects again by itself.
    this.xmpp.on("disconnect", () => {
      this.xmpp.options.service = service();
    });
    this.xmpp.on("stanza", (stanza) => {
      this.inbox.push(stanza);
      this.waiting.splice(0).forEach((wake) => wake());
    });
  }

  async login({ online = true } = {}) {
    this.jid = await within(this.xmpp.start(), "login");
    const sm = this.xmpp.streamManagement;
    // The library is online before it has enabled it, and forgets then what it has counted: what came with the answer it
    // would be sent again.
    await until(() => sm.enabled && sm.id, "stream management is on");
    if (online) await this.xmpp.send(xml("presence"));
    return this;
  }

  async next(filter = () => true) {
    const search = async () => {
      for (;;) {
        while (this.inbox.length > 0) {
          const stanza = this.inbox.shift();
          if (filter(stanza)) return stanza;
        }
        await new Promise((wake) => this.waiting.push(wake));
      }
    };
    return within(search(), "a stanza");
  }

  message(filter = () => true) {
    return this.next((s) => s.is("message") && s.getChild("body") && filter(s));
  }

  send(to, body, attributes = {}) {
    return this.xmpp.send(xml("message", { to, type: "chat", ...attributes }, xml("body", {}, body)));
  }

  request(iq) {
    return within(this.xmpp.iqCaller.request(iq), "an answer");
  }

  async ping() {
    await this.request(xml("iq", { type: "get" }, xml("ping", { xmlns: "urn:xmpp:ping" })));
  }

  async leave() {
    await within(this.xmpp.stop(), "the end of the stream");
  }
}

export async function run(work) {
  try {
    await work();
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
  process.exit(0);
}
