"""Roster and subscription, both ways, then removal."""

from common import Client, run, until


async def case():
    alice = await Client("alice@localhost/py").login()
    bob = Client("bob@localhost/py")
    await bob.login()
    # The library answers subscription requests by itself: grants, and asks back.
    bob.auto_authorize = bob.auto_subscribe = True
    alice.auto_authorize = alice.auto_subscribe = True

    await alice.update_roster("bob@localhost", name="Bob", groups=["Friends"])
    await until(lambda: alice.client_roster["bob@localhost"]["name"] == "Bob", "the item is pushed")
    assert alice.client_roster["bob@localhost"]["groups"] == ["Friends"]
    alice.send_presence_subscription("bob@localhost")
    for one, other in ((alice, "bob@localhost"), (bob, "alice@localhost")):
        await until(lambda: one.client_roster[other]["subscription"] == "both", f"{other} is subscribed both ways")
    assert alice.client_roster["bob@localhost"]["groups"] == ["Friends"], "a subscription keeps name and groups"
    await until(lambda: "py" in alice.client_roster.presence("bob@localhost"), "presence of bob")
    await until(lambda: "py" in bob.client_roster.presence("alice@localhost"), "presence of alice")

    gone = bob.wait_for("got_offline")
    await alice.leave()
    assert (await gone)["from"].bare == "alice@localhost"

    alice = await Client("alice@localhost/py").login()
    assert alice.client_roster["bob@localhost"]["subscription"] == "both"
    await alice.del_roster_item("bob@localhost")
    await until(lambda: bob.client_roster["alice@localhost"]["subscription"] == "none", "bob is told")
    await alice.leave()
    await bob.leave()


run(case)
