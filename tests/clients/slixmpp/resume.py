"""Stream management (XEP-0198): the TCP connection is cut, the library comes back by itself and resumes."""

from common import Client, run


async def case():
    bob = await Client("bob@localhost/py", plugins=["xep_0203"]).login()
    alice = await Client("alice@localhost/py", managed=True).login()
    assert alice.plugin["xep_0198"].sm_id, "resumption was not granted"
    first = alice.plugin["xep_0198"].sm_id
    bob.send_message(mto="alice@localhost/py", mbody="before", mtype="chat")
    assert (await alice.message())["body"] == "before"

    resumed = alice.wait_for("session_resumed")
    lost = alice.wait_for("disconnected")
    alice.cut()
    await lost
    for number in range(3):
        bob.send_message(mto="alice@localhost/py", mbody=f"while away {number}", mtype="chat")
    await bob.plugin["xep_0199"].ping("localhost", timeout=5)
    alice.reach()
    await resumed
    assert alice.plugin["xep_0198"].sm_id == first
    assert alice.boundjid.full == "alice@localhost/py"
    for number in range(3):
        seen = await alice.message()
        assert seen["body"] == f"while away {number}", seen
    alice.send_message(mto="bob@localhost/py", mbody="still me", mtype="chat")
    assert (await bob.message())["body"] == "still me"
    assert alice.inbox.empty(), alice.inbox
    await alice.leave()
    await bob.leave()


run(case)
