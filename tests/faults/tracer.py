"""Runs a function in a forked child that stops before each system call that changes files, through ptrace and seccomp.

The kernel stops the child only at the calls in CALLS, in any of its threads, before the call has happened. So the calls
of a whole process come in one order, those outside the watched folder are left out, and a kill before the n-th falls
exactly there. Calls are not counted one name and one thread at a time, as `strace --inject` does it: a boundary between
two threads would be missed.

Linux on x86_64 and aarch64, no rights needed. Only for a process with one thread, whose other children it also reaps.
"""

import ctypes
import os
import platform
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_X86, _ARM = 0, 1
_MACHINES = {"x86_64": _X86, "aarch64": _ARM}

# Name: number on x86_64, number on aarch64 (none: the call does not exist there).
CALLS: dict[str, tuple[int, int | None]] = {
    "write": (1, 64),
    "open": (2, None),
    "pwrite64": (18, 68),
    "writev": (20, 66),
    "sendfile": (40, 71),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "rename": (82, None),
    "mkdir": (83, None),
    "rmdir": (84, None),
    "creat": (85, None),
    "link": (86, None),
    "unlink": (87, None),
    "symlink": (88, None),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "utimensat": (280, 88),
    "fallocate": (285, 47),
    "pwritev": (296, 70),
    "renameat2": (316, 276),
    "copy_file_range": (326, 285),
    "pwritev2": (328, 287),
    "openat2": (437, 437),
    # Writes through this would not be seen: whoever begins to use it has to extend this module.
    "io_uring_setup": (425, 425),
}
_ON_DESCRIPTOR = {
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "fsync", "fdatasync", "ftruncate", "fallocate", "sendfile"),
}
# Where the paths stand among the arguments: (folder descriptor or None, path), for one or two paths.
_PATHS: dict[str, tuple[tuple[int | None, int], ...]] = {
    "open": ((None, 0),),
    "creat": ((None, 0),),
    "truncate": ((None, 0),),
    "mkdir": ((None, 0),),
    "rmdir": ((None, 0),),
    "unlink": ((None, 0),),
    "rename": ((None, 0), (None, 1)),
    "link": ((None, 0), (None, 1)),
    "symlink": ((None, 1),),
    "openat": ((0, 1),),
    "openat2": ((0, 1),),
    "mkdirat": ((0, 1),),
    "unlinkat": ((0, 1),),
    "utimensat": ((0, 1),),
    "symlinkat": ((1, 2),),
    "renameat": ((0, 1), (2, 3)),
    "renameat2": ((0, 1), (2, 3)),
    "linkat": ((0, 1), (2, 3)),
}
_PLAIN = {"openat": "open", "creat": "open", "openat2": "open", "mkdirat": "mkdir", "unlinkat": "unlink"} | {
    name: name.removesuffix("2").removesuffix("at") for name in ("renameat", "renameat2", "linkat", "symlinkat")
}

_SEIZE, _CONT, _SYSCALL, _SYSCALL_INFO = 0x4206, 7, 24, 0x420E
# TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACESECCOMP, EXITKILL
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x100000
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_WALL = 0x40000000
_AT_FDCWD = -100
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_TRACE, _ALLOW = 0x7FF00000, 0x7FFF0000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True)
class Call:
    """A call that changes files, which has succeeded: its plain name (no `at`), its path, and the new one of a rename
    or link. `thread` tells threads apart."""

    name: str
    path: str
    target: str | None = None
    thread: int = 0


@dataclass(frozen=True)
class Run:
    """What became of a run: killed before a call or not, the calls that had succeeded, and its failure, if it failed.

    `killed_before` is that call, for which nothing is known of its success.
    """

    calls: tuple[Call, ...]
    killed_before: Call | None = None
    failure: str | None = None


def unavailable() -> str | None:
    """Why nothing can be traced here; None when it can."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return "needs Linux on x86_64 or aarch64"
    run = traced(lambda: None, Path("/"), None)
    return f"this process may not trace its children: {run.failure}" if run.failure else None


def traced(
    work: Callable[[], None], folder: Path, kill_before: int | None, on_kill: Callable[[], None] | None = None
) -> Run:
    """Run `work` in a child and collect its calls on `folder`.

    With `kill_before` = n, from 1, it gets SIGKILL before the call that follows n - 1 successful ones; `on_kill` is
    called before that, while the child stands still.
    """
    read_go, write_go = os.pipe()
    read_failure, write_failure = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_go)
        os.close(read_failure)
        _be_child(work, read_go, write_failure)
    os.close(read_go)
    os.close(write_failure)
    try:
        tracer = _Tracer(child, str(folder), kill_before, on_kill)
        tracer.attach()
        os.write(write_go, b"!")
        status = tracer.follow()
    finally:
        os.close(write_go)
        failure = _drain(read_failure)
    expected = 0 if tracer.killed_before is None else -signal.SIGKILL
    if status != expected and not failure:
        failure = f"it ended with status {status} instead of {expected}"
    return Run(tuple(tracer.calls), tracer.killed_before, failure or None)


def _drain(descriptor: int) -> str:
    with open(descriptor, "rb") as pipe:
        return pipe.read().decode()


def _be_child(work: Callable[[], None], go: int, failure: int) -> None:
    """Wait until the parent has attached, run, and end without Python's clean-up, which belongs to the parent."""
    status = 1
    try:
        if os.read(go, 1) == b"!":
            _stop_at_calls()
            work()
            status = 0
    except BaseException:  # noqa: BLE001 - the parent reports it
        os.write(failure, traceback.format_exc().encode()[-60_000:])
    finally:
        os._exit(status)


def _stop_at_calls() -> None:
    """From now on the kernel asks the tracer before each of CALLS; threads that start later inherit it."""
    machine = _MACHINES[platform.machine()]
    numbers = [number for numbers in CALLS.values() if (number := numbers[machine]) is not None]
    load, equal, give = 0x20, 0x15, 0x06
    program = [struct.pack("HBBI", load, 0, 0, 0)]
    for i, number in enumerate(numbers):
        program.append(struct.pack("HBBI", equal, len(numbers) - i, 0, number))
    program += [struct.pack("HBBI", give, 0, 0, _ALLOW), struct.pack("HBBI", give, 0, 0, _TRACE)]
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    for arguments in ((_NO_NEW_PRIVS, 1, None, None, None), (_SET_SECCOMP, _FILTER, header, None, None)):
        if _libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


class _Tracer:
    def __init__(self, child: int, folder: str, kill_before: int | None, on_kill: Callable[[], None] | None) -> None:
        self.calls: list[Call] = []
        self.killed_before: Call | None = None
        self._child, self._folder, self._kill_before, self._on_kill = child, folder, kill_before, on_kill
        self._pending: dict[int, Call] = {}
        machine = _MACHINES[platform.machine()]
        self._names = {numbers[machine]: name for name, numbers in CALLS.items()}
        self._info = ctypes.create_string_buffer(88)

    def attach(self) -> None:
        self._ptrace(_SEIZE, self._child, None, _OPTIONS)

    def follow(self) -> int:
        """Until the child has ended; returns its exit status, negative for a signal."""
        while True:
            thread, status = os.waitpid(-1, _WALL)
            if os.WIFSTOPPED(status):
                self._stopped(thread, status)
            elif thread == self._child:
                return os.waitstatus_to_exitcode(status)

    def _stopped(self, thread: int, status: int) -> None:
        event, stop_signal = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_SECCOMP:
            self._before_call(thread)
        elif stop_signal == signal.SIGTRAP | 0x80:
            self._after_call(thread)
        else:
            self._resume(_CONT, thread, 0 if event else stop_signal)

    def _before_call(self, thread: int) -> None:
        call = None if self.killed_before else self._read_call(thread)
        if call is None:
            self._resume(_CONT, thread, 0)
        elif self._kill_before is not None and len(self.calls) + 1 >= self._kill_before:
            self.killed_before = call
            if self._on_kill:
                self._on_kill()
            os.kill(self._child, signal.SIGKILL)
        else:
            self._pending[thread] = call
            self._resume(_SYSCALL, thread, 0)

    def _after_call(self, thread: int) -> None:
        call = self._pending.pop(thread, None)
        if call is not None and self._system_call(thread)[0] >= 0:
            self.calls.append(call)
        self._resume(_CONT, thread, 0)

    def _system_call(self, thread: int) -> tuple[int, ...]:
        """At a stop before a call: its number and arguments. After it: its result."""
        self._ptrace(_SYSCALL_INFO, thread, len(self._info), ctypes.addressof(self._info))
        entry, leave, seccomp = 1, 2, 3
        kind = self._info.raw[0]
        if kind == leave:
            return struct.unpack_from("q", self._info, 24)
        if kind not in (entry, seccomp):
            raise RuntimeError(f"a stop of kind {kind} where a call was expected")
        return struct.unpack_from("7q", self._info, 24)

    def _read_call(self, thread: int) -> Call | None:
        """The call that the thread is about to make; None when it does not change files of the folder."""
        number, *arguments = self._system_call(thread)
        name = self._names[number]
        if name == "io_uring_setup":
            raise RuntimeError("io_uring is in use: its writes would go unseen")
        if _only_reads(name, arguments):
            return None
        if name in _ON_DESCRIPTOR or name == "copy_file_range":
            descriptor = arguments[2 if name == "copy_file_range" else 0]
            paths = [_descriptor_path(thread, descriptor)]
        else:
            paths = [_argument_path(thread, arguments, *place) for place in _PATHS[name]]
        if not any(path == self._folder or path.startswith(f"{self._folder}/") for path in paths):
            return None
        return Call(_PLAIN.get(name, name), paths[0], paths[1] if len(paths) > 1 else None, thread)

    def _resume(self, how: int, thread: int, stop_signal: int) -> None:
        with suppress(ProcessLookupError):  # killed meanwhile
            self._ptrace(how, thread, None, stop_signal)

    @staticmethod
    def _ptrace(request: int, thread: int, address: int | None, data: int) -> None:
        if _libc.ptrace(request, thread, address, data) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"ptrace: {os.strerror(number)}")


def _only_reads(name: str, arguments: list[int]) -> bool:
    if name not in ("open", "openat"):
        return False
    flags = arguments[1 if name == "open" else 2]
    return not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def _descriptor_path(thread: int, descriptor: int) -> str:
    try:
        return str(Path(f"/proc/{thread}/fd/{descriptor}").readlink())
    except OSError:  # the call is about to fail for the same reason
        return ""


def _argument_path(thread: int, arguments: list[int], folder: int | None, path: int) -> str:
    if not arguments[path]:  # utimensat on a descriptor
        return _descriptor_path(thread, _as_int(arguments[0]))
    text = _text(thread, arguments[path])
    if text.startswith("/"):
        return os.path.normpath(text)
    at = _AT_FDCWD if folder is None else _as_int(arguments[folder])
    base = Path(f"/proc/{thread}/cwd").readlink() if at == _AT_FDCWD else _descriptor_path(thread, at)
    return os.path.normpath(f"{base}/{text}")


def _as_int(register: int) -> int:
    return ctypes.c_int(register & 0xFFFFFFFF).value


def _text(thread: int, address: int) -> str:
    """The string at an address of the child; paths are shorter than two pages."""
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        found = b""
        while b"\0" not in found:
            found += memory.read(4096 - (address + len(found)) % 4096)
    return os.fsdecode(found.partition(b"\0")[0])
