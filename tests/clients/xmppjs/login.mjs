// SCRAM over STARTTLS and direct TLS; a wrong password stays out.
import { Session, assert, run, services } from "./common.mjs";

await run(async () => {
  for (const service of Object.values(services)) {
    const alice = await new Session("alice", { service }).login();
    assert.equal(alice.jid.toString(), "alice@localhost/js");
    await alice.ping();
    await alice.leave();
  }
  const stranger = new Session("alice", { secret: "wrong" });
  await assert.rejects(stranger.login(), (error) => error.condition === "not-authorized");
});
