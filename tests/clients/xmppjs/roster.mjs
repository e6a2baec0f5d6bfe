// Roster and subscription by raw stanzas.
import { Session, assert, run, xml } from "./common.mjs";

const NS = "jabber:iq:roster";
const items = (iq) => iq.getChild("query", NS)?.getChildren("item") ?? [];
const fetch = (session) => session.request(xml("iq", { type: "get" }, xml("query", { xmlns: NS })));
const pushed = (session, state) =>
  session.next((s) => s.is("iq") && s.attrs.type === "set" && items(s)[0]?.attrs.subscription === state);

await run(async () => {
  const alice = await new Session("alice").login();
  const bob = await new Session("bob").login();
  assert.deepEqual(items(await fetch(alice)), []);
  await fetch(bob);
  const item = xml("item", { jid: "bob@localhost", name: "Bob" }, xml("group", {}, "Friends"));
  await alice.request(xml("iq", { type: "set" }, xml("query", { xmlns: NS }, item)));
  await pushed(alice, "none");

  await alice.xmpp.send(xml("presence", { to: "bob@localhost", type: "subscribe" }));
  await bob.next((s) => s.is("presence") && s.attrs.type === "subscribe");
  await bob.xmpp.send(xml("presence", { to: "alice@localhost", type: "subscribed" }));
  await pushed(alice, "to");
  await pushed(bob, "from");
  await bob.xmpp.send(xml("presence", {}, xml("status", {}, "here")));
  await alice.next((s) => s.is("presence") && s.attrs.from === "bob@localhost/js" && s.getChildText("status") === "here");

  const [entry] = items(await fetch(alice));
  assert.equal(entry.attrs.name, "Bob");
  assert.equal(entry.getChildText("group"), "Friends");
  assert.equal(entry.attrs.subscription, "to");
  await alice.leave();
  await bob.leave();
});
