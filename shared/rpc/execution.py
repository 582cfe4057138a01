"""Runs one command: parameters in, answer out, and never a traceback."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import structlog
from pydantic import ValidationError

from shared.errors import QuantumTraderError, RpcError
from shared.rpc.commands import CommandSpec, RpcModel
from shared.rpc.messages import RPCRequest, RPCResponse, error_response

#: Takes the validated request model, returns the result model.
RpcHandler: TypeAlias = Callable[[Any], Awaitable[RpcModel]]

log = structlog.get_logger(__name__)


def parameters_of(request: RPCRequest, spec: CommandSpec) -> RpcModel | RPCResponse:
    """Return the validated parameters, or the answer that says what is wrong with them."""
    try:
        return spec.request_model.model_validate(request.parameters)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "parameters"
        said = f"{request.command}: {where}: {problem['msg']}, was {problem['input']!r:.80}"
        return error_response("INVALID_PARAMETERS", said)


async def run_command(handler: RpcHandler, parameters: RpcModel, spec: CommandSpec, request: RPCRequest) -> RPCResponse:
    """Return what came of it; what went wrong inside is told to the log alone."""
    try:
        result = await handler(parameters)
        if not isinstance(result, spec.result_model):
            raise TypeError(f"handler returned {type(result).__name__}, not {spec.result_model.__name__}")
        return RPCResponse("SUCCESS", result.model_dump(mode="json"))
    except RpcError as error:
        return error_response(error.code, str(error))
    except QuantumTraderError as error:
        return error_response(error_code(error), str(error))
    except asyncio.CancelledError:
        if _is_being_cancelled():
            raise
        log.exception("rpc_handler_failed", command=request.command, request_id=request.request_id)
    except Exception:
        log.exception("rpc_handler_failed", command=request.command, request_id=request.request_id)
    return error_response("INTERNAL_ERROR", f"{request.command} failed inside {request.service_target}; see its log")


def _is_being_cancelled() -> bool:
    """Tell a cancelled handler from one that met somebody else's cancellation."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def error_code(error: QuantumTraderError) -> str:
    """Return ``CONNECTION_LOST`` for ConnectionLostError, and so on for the whole tree."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
