// Messages both ways, characters that need care, offline delivery.
import { Session, assert, run } from "./common.mjs";

await run(async () => {
  const alice = await new Session("alice").login();
  let bob = await new Session("bob").login();
  const text = "Grüße <&> 'quoted' \"twice\" 👋\nsecond line";
  await alice.send("bob@localhost/js", text, { id: "m1" });
  const seen = await bob.message();
  assert.equal(seen.getChildText("body"), text);
  assert.equal(seen.attrs.from, "alice@localhost/js");
  await bob.send("alice@localhost", "back");
  assert.equal((await alice.message()).getChildText("body"), "back");

  await bob.leave();
  for (let n = 0; n < 5; n++) await alice.send("bob@localhost", `offline ${n}`);
  await alice.ping();
  bob = await new Session("bob").login();
  for (let n = 0; n < 5; n++) {
    const late = await bob.message();
    assert.equal(late.getChildText("body"), `offline ${n}`);
    assert.ok(late.getChild("delay", "urn:xmpp:delay"));
  }
  await alice.leave();
  await bob.leave();
});
