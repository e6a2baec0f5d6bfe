"""Carbons (XEP-0280) between two devices, received and sent."""

import asyncio

from common import Client, PATIENCE, run


async def case():
    phone = await Client("alice@localhost/phone", plugins=["xep_0280"]).login()
    desk = await Client("alice@localhost/desk", plugins=["xep_0280"]).login()
    bob = await Client("bob@localhost/py").login()
    for device in (phone, desk):
        await device.plugin["xep_0280"].enable()

    copy = desk.wait_for("carbon_received")
    bob.send_message(mto="alice@localhost/phone", mbody="to the phone", mtype="chat")
    assert (await phone.message())["body"] == "to the phone"
    received = (await copy)["carbon_received"]
    assert received["body"] == "to the phone" and received["from"].full == "bob@localhost/py", received

    copy = phone.wait_for("carbon_sent")
    desk.send_message(mto="bob@localhost/py", mbody="from the desk", mtype="chat")
    assert (await bob.message())["body"] == "from the desk"
    sent = (await copy)["carbon_sent"]
    assert sent["body"] == "from the desk" and sent["to"].full == "bob@localhost/py", sent
    await asyncio.wait_for(desk.plugin["xep_0280"].disable(), PATIENCE)
    for client in (phone, desk, bob):
        await client.leave()


run(case)
