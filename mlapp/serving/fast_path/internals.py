"""The internals of uvicorn and httptools that `FastProtocol` and `FastCycle` use."""

from __future__ import annotations

import asyncio

SUPPORTED_UVICORN = "0.30 to 0.54"
METHODS = (
    "connection_made",
    "connection_lost",
    "data_received",
    "pause_writing",
    "resume_writing",
    "on_url",
    "on_header",
    "on_headers_complete",
    "on_body",
    "on_message_begin",
    "on_message_complete",
    "on_response_complete",
    "handle_websocket_upgrade",
    "timeout_keep_alive_handler",
    "_unset_keepalive_if_required",
    "_should_upgrade",
    "_should_upgrade_to_ws",
)
ATTRIBUTES = (
    "client",
    "connections",
    "cycle",
    "expect_100_continue",
    "flow",
    "headers",
    "loop",
    "parser",
    "pipeline",
    "server_state",
    "tasks",
    "timeout_keep_alive",
    "transport",
)
CYCLE = (
    "disconnected",
    "keep_alive",
    "message_event",
    "more_body",
    "response_complete",
    "response_started",
    "transport",
)
PARSER = (
    "feed_data",
    "get_http_version",
    "get_method",
    "set_dangerous_leniencies",
    "should_keep_alive",
    "should_upgrade",
)


def find_missing_internals() -> list[str]:
    """The names that the installed uvicorn and httptools lack."""
    try:
        import httptools
        from uvicorn import Config
        from uvicorn.protocols.http import httptools_impl
        from uvicorn.protocols.http.flow_control import FlowControl
        from uvicorn.server import ServerState

        protocol = httptools_impl.HttpToolsProtocol
        config = Config(_answer_nothing, http=protocol, ws="none", lifespan="off", log_config=None)
        loop = asyncio.new_event_loop()
        try:
            instance = protocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
        finally:
            loop.close()
        cycle = httptools_impl.RequestResponseCycle.__init__.__code__.co_names
    except (ImportError, AttributeError, TypeError) as error:
        return [str(error)]
    return [
        *(name for name in METHODS if not hasattr(protocol, name)),
        *(name for name in ATTRIBUTES if not hasattr(instance, name)),
        *(name for name in CYCLE if name not in cycle),
        *(name for name in PARSER if not hasattr(httptools.HttpRequestParser, name)),
        *(name for name in ("drain", "pause_reading", "resume_reading") if not hasattr(FlowControl, name)),
        *(name for name in ("read_paused", "write_paused") if name not in FlowControl.__init__.__code__.co_names),
    ]


async def _answer_nothing(scope: object, receive: object, send: object) -> None:
    """An application that is never called, to create a protocol."""
