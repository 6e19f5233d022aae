"""A notebook's kernel that goes on answering its page while a cell waits.

A kernel handles one request at a time, so a page that is reloaded while a cell waits learns nothing
about the kernel, and no widget comes back, until that cell has ended. While it waits the cell may
as well answer the small questions itself; whatever runs code is kept for afterwards, in order.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

QUESTIONS = {"kernel_info_request", "comm_info_request", "comm_open", "comm_msg", "comm_close"}


def wait(ready: Callable[[float], bool], step: float = 0.05) -> None:
    """Return when `ready(seconds)`, which waits that long at most, is true.

    In a kernel whose inner parts are not those of ipykernel 7, or without one, this only waits.
    """
    kernel, socket = _shell()
    if socket is None:
        while not ready(step):
            pass
        return
    parent, ident = kernel.get_parent(), kernel._parent_ident["shell"]
    handler, kept = kernel.saved_sigint_handler, []
    try:
        while not ready(0):
            if socket.poll(int(1000 * step)):
                _answer(kernel, socket.recv_multipart(copy=False), kept)
    finally:
        while socket.poll(0):  # a message left in the socket would not wake the kernel again
            kept.append(socket.recv_multipart(copy=False))
        kernel.set_parent(ident, parent)
        kernel.saved_sigint_handler = handler
        for message in kept:
            _later(kernel.shell_main(None, message))


def _shell() -> tuple[Any, Any]:
    """The kernel that runs this cell and the socket of its requests, or None for both."""
    with contextlib.suppress(ImportError, AttributeError, RuntimeError):
        from ipykernel.eventloops import get_shell_stream
        from IPython import get_ipython

        kernel = get_ipython().kernel
        asyncio.get_running_loop()  # raises RuntimeError outside the kernel's own thread
        _ = kernel.shell_main, kernel.saved_sigint_handler, kernel._parent_ident  # there at all?
        return kernel, get_shell_stream(kernel).socket
    return None, None


def _answer(kernel: Any, message: list[Any], kept: list[list[Any]]) -> None:
    """Handle one message if it is a small question, else keep it."""
    if _kind(kernel, message) not in QUESTIONS:
        kept.append(message)
        return
    # In a context of its own: what it sets as the request being answered stays in there.
    contextvars.copy_context().run(_complete, kernel.dispatch_shell(message, subshell_id=None))


def _kind(kernel: Any, message: list[Any]) -> str:
    """The type of a message, empty for what is not one."""
    try:
        _, frames = kernel.session.feed_identities(message, copy=False)
        return kernel.session.unpack(frames[1].bytes)["msg_type"]
    except (ValueError, IndexError, KeyError, TypeError):
        return ""


def _complete(answer: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing to its end; the loop it belongs to is blocked."""
    try:
        answer.send(None)
    except StopIteration:
        return
    answer.close()


_tasks: set[asyncio.Task] = set()  # a task nobody refers to may be collected before it runs


def _later(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work, context=contextvars.copy_context())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
