"""What the slixmpp cases share: addresses from the environment, a client that verifies, and waits that end.

A server may have many places to connect to. Every connection is made to the next of them.
"""

import asyncio
import itertools
import os
import ssl
import sys
import traceback

import slixmpp
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

HOST = "127.0.0.1"
PORTS = itertools.cycle(map(int, os.environ["XMPP_PORTS"].split()))
TLS_PORTS = itertools.cycle(map(int, os.environ["XMPP_TLS_PORTS"].split()))
AUTHORITY = os.environ["XMPP_CA"]
PASSWORD = os.environ["XMPP_PASSWORD"]
PATIENCE = 10


class Client(slixmpp.ClientXMPP):
    """A session that verifies the server's certificate against the test authority."""

    def __init__(self, jid, direct_tls=False, mechanism=None, managed=False, plugins=()):
        super().__init__(jid, PASSWORD, sasl_mech=mechanism)
        self.direct_tls = direct_tls
        self.ca_certs = AUTHORITY
        # The library verifies when it is given an authority, and checks the name by itself.
        self.ssl_context.check_hostname = True
        self.ssl_context.verify_mode = ssl.CERT_REQUIRED
        for plugin in ("xep_0030", "xep_0199", *plugins):
            self.register_plugin(plugin)
        if managed:
            self.register_plugin("xep_0198")
        self.inbox = asyncio.Queue()
        self.add_event_handler("message", self.inbox.put_nowait)

    async def login(self, online=True):
        """Connects, authenticates, binds; fetches the roster and comes online unless told not to."""
        started = self.wait_for("session_start")
        failed = self.wait_for("failed_auth")
        self.reach()
        done, pending = await asyncio.wait({started, failed}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        for future in pending:
            future.cancel()
        if failed in done:
            raise AssertionError("authentication failed")
        if started not in done:
            raise AssertionError("no session")
        assert isinstance(self.transport.get_extra_info("ssl_object"), (ssl.SSLObject, ssl.SSLSocket)), "no TLS"
        if online:
            await self.get_roster()
            self.send_presence()
        return self

    def reach(self):
        """Starts to connect, by the one way that the case asks for, never in clear."""
        self.enable_plaintext = False
        self.enable_direct_tls = self.direct_tls
        self.enable_starttls = not self.direct_tls
        self.connect(HOST, next(TLS_PORTS if self.direct_tls else PORTS))

    def wait_for(self, event):
        """A future that an event completes."""
        future = asyncio.get_running_loop().create_future()
        self.add_event_handler(event, lambda data: future.done() or future.set_result(data), disposable=True)
        return asyncio.ensure_future(asyncio.wait_for(future, PATIENCE))

    async def message(self):
        """The next message."""
        return await asyncio.wait_for(self.inbox.get(), PATIENCE)

    async def leave(self):
        await asyncio.wait_for(self.disconnect(wait=1), PATIENCE)

    def cut(self):
        """Breaks the connection without a word, as a dying network does."""
        self.transport.abort()


async def until(condition, what):
    """Waits until something holds."""
    for _ in range(PATIENCE * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE} s: {what}")


def run(case):
    """Runs one case; its failure is the process's."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(asyncio.wait_for(case(), 40))
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)
    # Sessions that a case left open need no farewell.
    os._exit(0)
