"""A gRPC server that honours its own tokens only, on PyPI's `grpcio` and nothing else, so that the
tests are judged by a gRPC that nobody wrote for them.

    python server.py        prints {"port":PORT} and serves 127.0.0.1 until its stdin closes

The framing, the flow control and the way a status reaches the wire are the library's. Ours are the
methods, which take and give raw bytes, and what a test needs to steer and to judge.

    /grpc.health.v1.Health/Check    SERVING
    /grpc.health.v1.Health/Watch    the same, and again at each "notify"
    /test.Echo/Unary                what it was sent
    /test.Echo/ClientStream         {"sha256":"..","length":n} of all that it was sent
    /test.Echo/ServerStream         as many messages as `x-messages` says, each the request's
    /test.Echo/Bidi                 each message, at once; the initial metadata before the first

Every call has to carry `authorization: Bearer TOKEN`. The token is looked at when `x-judge` says so,
and one that is not valid at that moment ends the call with UNAUTHENTICATED:

    start     before anything is read or sent: a "trailers-only" answer (the default)
    headers   when the initial metadata is sent, and no message
    held      the same, but not before "release"
    read:N    when N messages are read
    read:all  when all are read
    sent:N    when N messages are sent
    each      at the start, and before each message that is sent

With `x-deny` the call ends there with PERMISSION_DENIED if the token is valid. `x-request-id` names a
call, so that two deliveries of it are seen as such.

stdin takes one object a line, and stdout gives one for each:

    {"do":"issue"}                  {"token":"..","number":n}, n from 1
    {"do":"revoke"}                 every token dies -> {"revoked":n}
    {"do":"revoke","after":n}       the same, but once n more calls were found to have a valid token
    {"do":"notify"}                 the streams of Watch have something to say
    {"do":"release"}                what is held goes on, now and from now on
    {"do":"counts"}                 what reached this server, see `Counts`
    {"do":"deliveries","id":".."}   {"tokens":[..]}: the number of the token that each delivery of this
                                    call came with, 0 for none or an unknown one

stdin is the leash: a test that dies, however it dies, leaves no server behind.
"""

import asyncio
import hashlib
import json
import secrets
import sys

import grpc

# ------------------------------------------------------------------------------------------------
# The issuer.


class Tokens:
    def __init__(self):
        self.numbers = {}  # token -> its number; no token is forgotten
        self.valid = set()
        self.revoked = 0
        self.good_for = None  # so many looks more, and then all are revoked

    def issue(self):
        number = len(self.numbers) + 1
        token = f"{number}.{secrets.token_urlsafe(24)}"
        self.numbers[token] = number
        self.valid.add(token)
        return token, number

    def revoke(self):
        revoked = len(self.valid)
        self.valid.clear()
        self.revoked += revoked
        self.good_for = None
        return revoked

    def is_valid(self, token):
        if token not in self.valid:
            return False
        if self.good_for is not None:
            self.good_for -= 1
            if self.good_for == 0:
                self.revoke()
        return True


# ------------------------------------------------------------------------------------------------
# What reached the server.


class Counts:
    def __init__(self):
        self.methods = {}  # path -> deliveries
        self.deliveries = {}  # x-request-id -> the number of the token of each
        self.peers = set()
        # Each delivery ends as one of these.
        self.answered = 0
        self.refused = 0  # UNAUTHENTICATED
        self.denied = 0  # PERMISSION_DENIED
        self.left = 0  # the caller did not wait for the end

    def arrived(self, call):
        self.methods[call.path] = self.methods.get(call.path, 0) + 1
        self.deliveries.setdefault(call.request_id, []).append(tokens.numbers.get(call.token, 0))
        self.peers.add(call.context.peer())

    def all(self):
        named = [len(seen) for name, seen in self.deliveries.items() if name is not None]
        return {
            "issued": len(tokens.numbers),
            "revoked": tokens.revoked,
            "deliveries": sum(self.methods.values()),
            "answered": self.answered,
            "refused": self.refused,
            "denied": self.denied,
            "left": self.left,
            "calls": len(named),  # those that have a name
            "max_deliveries": max(named, default=0),  # of one of them
            "methods": self.methods,
            "connections": len(self.peers),
        }


tokens = Tokens()
counts = Counts()
released = asyncio.Event()
notices = asyncio.Condition()

# ------------------------------------------------------------------------------------------------
# A call.


class Call:
    """One delivery. It reads and sends through this, so that the token is looked at in time."""

    def __init__(self, path, context):
        self.path = path
        self.context = context
        self.metadata = dict(context.invocation_metadata())
        self.request_id = self.metadata.get("x-request-id")
        scheme, _, self.token = self.metadata.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            self.token = ""
        self.when = self.metadata.get("x-judge", "start")
        self.read = self.sent = 0

    async def judge(self, *moments):
        if self.when not in moments:
            return
        if not tokens.is_valid(self.token):
            counts.refused += 1
            await self.context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not valid")
        if "x-deny" in self.metadata:
            counts.denied += 1
            await self.context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for this token")

    async def begin(self):
        await self.judge("start", "each")
        if self.when in ("headers", "held"):
            await self.head()
            if self.when == "held":
                await released.wait()
            await self.judge("headers", "held")

    async def head(self):
        # More than the default, which would wait for the first message or the end.
        await self.context.send_initial_metadata((("x-served-by", "grpcio"),))

    async def messages(self):
        while (message := await self.context.read()) is not grpc.aio.EOF:
            self.read += 1
            await self.judge(f"read:{self.read}")
            yield message
        await self.judge("read:all")

    async def all(self):
        return b"".join([message async for message in self.messages()])

    async def send(self, message):
        await self.judge("each")
        await self.context.write(message)
        self.sent += 1
        await self.judge(f"sent:{self.sent}")


async def check(call):
    await call.all()
    await call.send(SERVING)


async def watch(call):
    await call.all()
    async with notices:
        while True:
            await call.send(SERVING)
            await notices.wait()


async def unary(call):
    await call.send(await call.all())


async def client_stream(call):
    digest, length = hashlib.sha256(), 0
    async for message in call.messages():
        digest.update(message)
        length += len(message)
    await call.send(json.dumps({"sha256": digest.hexdigest(), "length": length}).encode())


async def server_stream(call):
    message = await call.all()
    for _ in range(int(call.metadata["x-messages"])):
        await call.send(message)


async def bidi(call):
    if call.when not in ("headers", "held"):
        await call.head()
    async for message in call.messages():
        await call.send(message)


# grpc.health.v1.HealthCheckResponse { status: SERVING }: field 1, a varint, 1.
SERVING = b"\x08\x01"

METHODS = {
    "/grpc.health.v1.Health/Check": check,
    "/grpc.health.v1.Health/Watch": watch,
    "/test.Echo/Unary": unary,
    "/test.Echo/ClientStream": client_stream,
    "/test.Echo/ServerStream": server_stream,
    "/test.Echo/Bidi": bidi,
}


class Methods(grpc.GenericRpcHandler):
    """On the wire each shape is a stream either way. Served as one, a call is ours from its head on:
    as unary ones the library would read the message before we may refuse it."""

    def service(self, details):
        method = METHODS.get(details.method)
        if method is None:
            return None

        async def serve(_, context):
            call = Call(details.method, context)
            counts.arrived(call)
            try:
                await call.begin()
                await method(call)
                counts.answered += 1
            except asyncio.CancelledError:
                counts.left += 1
                raise

        return grpc.stream_stream_rpc_method_handler(serve)


# ------------------------------------------------------------------------------------------------
# The control.


async def obey(order):
    match order:
        case {"do": "issue"}:
            token, number = tokens.issue()
            return {"token": token, "number": number}
        case {"do": "revoke", "after": int(looks)} if looks > 0:
            tokens.good_for = looks
            return {}
        case {"do": "revoke"}:
            return {"revoked": tokens.revoke()}
        case {"do": "notify"}:
            async with notices:
                notices.notify_all()
            return {}
        case {"do": "release"}:
            released.set()
            return {}
        case {"do": "counts"}:
            return counts.all()
        case {"do": "deliveries", "id": name}:
            return {"tokens": counts.deliveries.get(name, [])}
    return {"error": f"no such order: {order}"}


async def main():
    # Two servers on one port would share its calls.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Methods(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print(json.dumps({"port": port}), flush=True)
    async for line in orders:
        print(json.dumps(await obey(json.loads(line))), flush=True)
    await server.stop(None)


asyncio.run(main())
