"""Each way in: SCRAM and PLAIN, over STARTTLS and direct TLS; a wrong password stays out."""

from common import Client, PASSWORD, run


async def case():
    for direct in (False, True):
        for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", None):
            client = Client("alice@localhost/py", direct_tls=direct, mechanism=mechanism)
            await client.login()
            assert client.boundjid.full == "alice@localhost/py", client.boundjid
            await client.plugin["xep_0199"].ping("localhost", timeout=5)
            await client.leave()
    stranger = Client("alice@localhost/py", mechanism="SCRAM-SHA-256")
    stranger.password = PASSWORD + "x"
    try:
        await stranger.login()
    except AssertionError as error:
        assert "authentication failed" in str(error), error
    else:
        raise AssertionError("a wrong password was taken")


run(case)
