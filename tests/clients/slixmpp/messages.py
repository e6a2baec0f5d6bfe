"""Messages with receipts (XEP-0184) that the library asks for and answers by itself; offline delivery."""

from common import Client, run


async def case():
    alice = await Client("alice@localhost/py", plugins=["xep_0184"]).login()
    bob = Client("bob@localhost/py", plugins=["xep_0184", "xep_0203"])
    bob.plugin["xep_0184"].auto_ack = True
    alice.plugin["xep_0184"].auto_request = True
    await bob.login()

    receipt = alice.wait_for("receipt_received")
    message = alice.make_message(mto="bob@localhost/py", mbody="Grüße <&> 👋", mtype="chat")
    message.send()
    seen = await bob.message()
    assert seen["body"] == "Grüße <&> 👋", seen
    assert seen["from"].full == "alice@localhost/py"
    assert (await receipt)["receipt"] == message["id"]

    await bob.leave()
    for number in range(5):
        alice.send_message(mto="bob@localhost", mbody=f"offline {number}", mtype="chat")
    await alice.plugin["xep_0199"].ping("localhost", timeout=5)
    bob = await Client("bob@localhost/py", plugins=["xep_0203"]).login()
    for number in range(5):
        seen = await bob.message()
        assert seen["body"] == f"offline {number}", seen
        assert seen["delay"]["stamp"] is not None
    await bob.leave()
    await alice.leave()


run(case)
