// Stream management: the TCP connection is cut, the library reconnects by itself and resumes the session.
import { Session, assert, run, within } from "./common.mjs";

await run(async () => {
  const bob = await new Session("bob").login();
  const alice = await new Session("alice").login();
  const sm = alice.xmpp.streamManagement;
  const { id } = sm;
  await bob.send("alice@localhost/js", "before");
  await alice.message((m) => m.getChildText("body") === "before");

  const resumed = new Promise((resolve) => sm.once("resumed", resolve));
  alice.xmpp.socket.socket.destroy();
  for (let n = 0; n < 3; n++) await bob.send("alice@localhost/js", `while away ${n}`);
  await bob.ping();
  await within(resumed, "resumption");
  assert.equal(sm.id, id);
  for (let n = 0; n < 3; n++) assert.equal((await alice.message()).getChildText("body"), `while away ${n}`);
  await alice.send("bob@localhost/js", "still me");
  assert.equal((await bob.message()).getChildText("body"), "still me");
  await alice.ping();
  assert.equal(alice.inbox.filter((s) => s.is("message")).length, 0, "nothing comes twice");
  await alice.leave();
  await bob.leave();
});
