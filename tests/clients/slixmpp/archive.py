"""The archive (XEP-0313), paged by the library, forward and with a filter."""

from common import Client, run

COUNT = 35


async def case():
    alice = await Client("alice@localhost/py", plugins=["xep_0313", "xep_0059"]).login()
    start = "dave@localhost"
    for number in range(COUNT):
        alice.send_message(mto=start, mbody=f"row {number}", mtype="chat")
        if number % 5 == 0:
            alice.send_message(mto="carol@localhost", mbody=f"other {number}", mtype="chat")
    await alice.plugin["xep_0199"].ping("localhost", timeout=5)

    bodies, ids, pages = [], set(), 0
    results = alice.plugin["xep_0313"].retrieve(with_jid=start, iterator=True, rsm={"max": 10})
    async for page in results:
        pages += 1
        for message in page["mam"]["results"]:
            result = message["mam_result"]
            ids.add(result["id"])
            bodies.append(result["forwarded"]["stanza"]["body"])
            assert result["forwarded"]["delay"]["stamp"] is not None
    assert bodies == [f"row {number}" for number in range(COUNT)], bodies
    assert len(ids) == COUNT and pages >= 4, (len(ids), pages)
    await alice.leave()


run(case)
