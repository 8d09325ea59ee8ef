#!/usr/bin/env python3
"""What one writes instead: an aiohttp reverse proxy. `aiohttp_proxy.py PORT UPSTREAM-PORT`."""

from __future__ import annotations

import sys

from aiohttp import ClientSession, TCPConnector, web


async def _pass_on(request: web.Request) -> web.Response:
    session: ClientSession = request.app["session"]
    url = f"http://127.0.0.1:{sys.argv[2]}{request.rel_url}"
    async with session.request(request.method, url, headers=request.headers) as answer:
        body = await answer.read()
        return web.Response(status=answer.status, body=body, content_type="text/plain")


async def _session(app: web.Application):  # type: ignore[no-untyped-def]
    app["session"] = ClientSession(connector=TCPConnector(limit=64))
    yield
    await app["session"].close()


if __name__ == "__main__":
    application = web.Application()
    application.cleanup_ctx.append(_session)
    application.router.add_route("*", "/{path:.*}", _pass_on)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
