"""Blocking (XEP-0191)."""

import asyncio

from common import Client, run


async def case():
    alice = await Client("alice@localhost/py", plugins=["xep_0191"]).login()
    bob = await Client("bob@localhost/py").login()
    await alice.plugin["xep_0191"].block("bob@localhost")
    blocked = await alice.plugin["xep_0191"].get_blocked()
    assert [item.get("jid") for item in blocked.xml.iter("{urn:xmpp:blocking}item")] == ["bob@localhost"], blocked

    refused = bob.wait_for("message_error")
    bob.send_message(mto="alice@localhost", mbody="blocked", mtype="chat")
    assert (await refused)["error"]["condition"] == "service-unavailable"
    await asyncio.sleep(0.2)
    assert alice.inbox.empty()

    await alice.plugin["xep_0191"].unblock("bob@localhost")
    bob.send_message(mto="alice@localhost", mbody="again", mtype="chat")
    assert (await alice.message())["body"] == "again"
    await alice.leave()
    await bob.leave()


run(case)
