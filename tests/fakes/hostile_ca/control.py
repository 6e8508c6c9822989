"""The control page: plain HTTP on loopback, for whoever runs the CA as a process."""

from __future__ import annotations

from aiohttp import web

from tests.fakes.hostile_ca.script import Resource, Script
from tests.fakes.hostile_ca.server import HostileCa


def control_application(ca: HostileCa) -> web.Application:
    """Return the pages that read the ledger, change the script and end a hang."""

    async def ledger(_: web.Request) -> web.Response:
        return web.json_response(ca.ledger.to_json())

    async def script(_: web.Request) -> web.Response:
        return web.json_response(ca.script.to_json())

    async def change_script(request: web.Request) -> web.Response:
        ca.script = Script.from_json(await request.json())
        return web.json_response({})

    async def release(_: web.Request) -> web.Response:
        ca.release()
        return web.json_response({})

    async def seen(request: web.Request) -> web.Response:
        wanted = await request.json()
        try:
            resource, count = Resource(wanted["resource"]), int(wanted["count"])
            await ca.seen(resource, count, seconds=float(wanted["seconds"]))
        except TimeoutError:
            text = f"{ca.ledger.count(resource)} of {count} requests for {resource}"
            return web.Response(status=408, text=text)
        return web.json_response({})

    application = web.Application()
    application.router.add_get("/ledger", ledger)
    application.router.add_get("/script", script)
    application.router.add_post("/script", change_script)
    application.router.add_post("/release", release)
    application.router.add_post("/seen", seen)
    return application
