"""The proxy forwards connections, and its target can change while it runs."""

import asyncio

import pytest
import uvloop

from mlapp.deploy.docker.tcp_proxy import BACKEND, Proxy

LINE = 1 << 23


async def backend(name):
    async def answer(reader, writer):
        while line := await reader.readline():
            writer.write(name + b" " + line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=LINE)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_new_connections_go_to_the_new_backend_and_open_ones_stay(run, tmp_path):
    async def main():
        (one, port_of_one), (two, port_of_two) = await backend(b"one"), await backend(b"two")
        (tmp_path / BACKEND).write_text(f"127.0.0.1:{port_of_one}")
        front = Proxy(tmp_path)
        server = await asyncio.get_running_loop().create_server(front.accept_client, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def connected():
            return await asyncio.open_connection("127.0.0.1", port, limit=LINE)

        async def ask(connection):
            connection[1].write(b"hello\n")
            return await asyncio.wait_for(connection[0].readline(), 40)

        before = await connected()
        assert await ask(before) == b"one hello\n"
        (tmp_path / BACKEND).write_text(f"127.0.0.1:{port_of_two}")
        front.reload_backend()
        after = await connected()
        assert await ask(after) == b"two hello\n"
        assert await ask(before) == b"one hello\n"

        reader, writer = await connected()
        large = b"x" * 5_000_000
        writer.write(large + b"\n")
        writer.write_eof()
        got = await asyncio.wait_for(reader.read(-1), 40)
        assert got == b"two " + large + b"\n"
        for each in (one, two, server):
            each.close()

    run(main())


def test_a_connection_waits_for_a_backend_that_is_being_started(tmp_path):
    async def main():
        server, port = await backend(b"late")
        server.close()
        await server.wait_closed()
        (tmp_path / BACKEND).write_text(f"127.0.0.1:{port}")
        front = Proxy(tmp_path)
        listening = await asyncio.get_running_loop().create_server(front.accept_client, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.sockets[0].getsockname()[1])
        writer.write(b"hello\n")
        await asyncio.sleep(0.2)

        async def answer(reader, writer):
            writer.write(b"late " + await reader.readline())

        await asyncio.start_server(answer, "127.0.0.1", port)
        assert await asyncio.wait_for(reader.readline(), 40) == b"late hello\n"
        listening.close()

    asyncio.run(main())
