// A raw XEP-0313 query, in pages.
import { Session, assert, run, xml } from "./common.mjs";

const MAM = "urn:xmpp:mam:2";
const RSM = "http://jabber.org/protocol/rsm";
const COUNT = 12;

await run(async () => {
  const alice = await new Session("alice").login();
  for (let n = 0; n < COUNT; n++) await alice.send("bob@localhost", `row ${n}`);
  await alice.ping();
  const rows = [];
  let after;
  for (let page = 0; page < 10; page++) {
    const set = xml("set", { xmlns: RSM }, xml("max", {}, "5"), after && xml("after", {}, after));
    const query = xml("query", { xmlns: MAM, queryid: `page-${page}` }, set);
    const answer = await alice.request(xml("iq", { type: "set" }, query));
    const results = alice.inbox.splice(0).flatMap((s) => s.getChild("result", MAM) ?? []);
    for (const result of results) {
      assert.equal(result.attrs.queryid, `page-${page}`);
      const forwarded = result.getChild("forwarded", "urn:xmpp:forward:0");
      assert.ok(forwarded.getChild("delay", "urn:xmpp:delay").attrs.stamp);
      rows.push(forwarded.getChild("message", "jabber:client").getChildText("body"));
    }
    const fin = answer.getChild("fin", MAM);
    after = fin.getChild("set", RSM).getChildText("last");
    assert.equal(after, results.at(-1).attrs.id);
    if (fin.attrs.complete === "true") break;
  }
  assert.deepEqual(rows, Array.from({ length: COUNT }, (_, n) => `row ${n}`));
  await alice.leave();
});
