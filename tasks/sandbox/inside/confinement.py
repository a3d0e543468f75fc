"""Taking away what a process may do, for good: namespaces, user, Landlock, seccomp, resource limits.

Each layer says whether it holds; what is missing is for the caller to judge. Numbers are those of the kernel's headers
(`linux/landlock.h`, `linux/seccomp.h`, `linux/filter.h`, `linux/prctl.h`, `asm/unistd.h`).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from tasks.sandbox.inside import syscalls

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 8, 22, 38
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1024, 16384, 1 << 18
_MOUNT_SETATTR, _MOUNT_ATTR_RDONLY, _AT_FDCWD, _AT_RECURSIVE = 442, 1, -100, 0x8000
_CAP_DAC_READ_SEARCH = 1 << 2
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_READ_FILE, _WRITE_FILE, _READ_DIR = 1 << 2, 1 << 1, 1 << 3
_SCRATCH = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 7) | (1 << 8) | (1 << 12) | (1 << 14)
"""Reading, writing and making files, folders and symbolic links, truncating. No sockets, no devices."""
_REMOVE = (1 << 4) | (1 << 5)
"""Removing and renaming. Only in a file system of the jail's own: in another, what is removed but still open or mapped
takes space that nobody without privileges can see."""
_OWN_USERS = 2_000_000_000
"""Users that nobody has: each process gets one of its own, so that limits per user count it alone."""

Layers = dict[str, str]


def prepare(settings: dict[str, Any]) -> Layers:
    """What both processes share and only the first can do: namespaces, and the scratch folder's file system."""
    die_with(settings["parent"])
    layers: Layers = {}
    if settings["namespaces"]:
        layers |= _try("namespaces", _namespaces)
    if layers:
        layers |= _try("disk", lambda: _file_system(settings))
    # Since 5.14 (Landlock 2 came with 5.19) the users of a namespace are counted for themselves.
    settings["counted"] = os.geteuid() == 0 or ("namespaces" in layers and _landlock_version() >= 2)
    if os.geteuid() == 0:
        settings["group"] = _OWN_USERS + os.getpid()
        os.chown(".", -1, settings["group"])
        os.chmod(".", 0o770)  # noqa: PTH101 - program and test are different users of one group that nobody else is in
    return layers


def die_with(process: int) -> None:
    """End when that process ends, which is the parent."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != process:
        os._exit(2)


def detach(channel: int, keeper: int) -> None:
    """Keep nothing of the parent process but `channel`; end with process `keeper`."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, channel)
    os.closerange(channel + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    die_with(keeper)


def confine(settings: dict[str, Any]) -> Layers:
    """Apply every layer that this machine has to the calling process. Returns those that hold, with a word on each."""
    parent = os.getppid()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    layers = _try("limits", lambda: _limits(settings))
    landlock = _landlock_version()
    layers |= _try("user", lambda: _leave_root(settings, keep_reading=landlock > 0))
    die_with(parent)  # again: changing the user clears it
    _prctl(_PR_SET_DUMPABLE, 0)
    layers |= _try("landlock", lambda: _landlock(settings, landlock))
    layers |= _try("seccomp", _seccomp)
    return layers


def _try(name: str, apply: Callable[[], str]) -> Layers:
    try:
        return {name: apply()}
    except (OSError, ValueError, AttributeError):
        return {}


def _prctl(option: int, value: int) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(int(value)), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _namespaces() -> str:
    user, group, flags = os.geteuid(), os.getegid(), _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWNS
    if user == 0:
        _checked(_libc.unshare(flags))
        return "a network, System V IPC and mounts of its own"
    _checked(_libc.unshare(flags | _CLONE_NEWUSER))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)
    return "users, a network, System V IPC and mounts of its own"


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "users"))


def _file_system(settings: dict[str, Any]) -> str:
    """Mount a file system in memory on the current folder; its size is the kernel's to hold, and it ends with the jail.

    Everything else is made read-only besides, and the kernel's list of processes is covered: neither access times nor
    threads that come and go tell another jail anything.
    """
    _checked(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    size, files = settings["scratch"], settings["files"]
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME)
    options = f"size={size},nr_inodes={files},mode=700".encode()
    _checked(_libc.mount(b"codetune", b".", b"tmpfs", flags, options))
    _checked(_libc.mount(b"codetune", b"/proc", b"tmpfs", flags, b"size=4k,nr_inodes=1,mode=0"))
    os.chdir(os.getcwd())  # noqa: PTH109 - the same name leads to what was mounted
    said = f"a file system of its own, {size >> 20} MiB"
    try:
        _read_only(b"/", _AT_RECURSIVE, _MountAttributes(set=_MOUNT_ATTR_RDONLY))
    except OSError:
        return said
    _read_only(b".", 0, _MountAttributes(clear=_MOUNT_ATTR_RDONLY))
    return f"{said}; all others read-only"


def _read_only(path: bytes, flags: int, attributes: _MountAttributes) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _checked(_libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, flags, ctypes.byref(attributes), size))


def _limits(settings: dict[str, Any]) -> str:
    seconds = int(settings["seconds"]) + 1
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_AS, settings["memory"], settings["memory"]),
        (resource.RLIMIT_FSIZE, settings["file"], settings["file"]),
        (resource.RLIMIT_NOFILE, settings["descriptors"], settings["descriptors"]),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ):
        _lower(kind, soft, hard)
    return f"{settings['seconds']:g} s, {settings['memory'] >> 20} MiB memory, {settings['file'] >> 20} MiB a file"


def _lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit, to what is allowed already if that is less."""
    ceiling = resource.getrlimit(kind)[1]
    allowed = [value if ceiling == resource.RLIM_INFINITY else min(value, ceiling) for value in (soft, hard)]
    resource.setrlimit(kind, (allowed[0], allowed[1]))


def _leave_root(settings: dict[str, Any], *, keep_reading: bool) -> str:
    threads = settings["threads"]
    if os.geteuid() != 0:
        _capabilities(0)  # those that a namespace of its own brings
        if not settings["counted"]:
            return "not root"
        _lower(resource.RLIMIT_NPROC, threads + 2, threads + 2)  # the two other processes count, too
        return f"not root, {threads} threads"
    reading = settings["private"]
    if reading and not keep_reading:
        raise OSError("the interpreter lies where only root can read, and nothing else would limit reading")
    _prctl(_PR_SET_KEEPCAPS, 1)
    user = _OWN_USERS + os.getpid()
    os.setgroups([])
    os.setresgid(settings["group"], settings["group"], settings["group"])
    os.setresuid(user, user, user)
    _capabilities(_CAP_DAC_READ_SEARCH if reading else 0)
    _lower(resource.RLIMIT_NPROC, threads, threads)
    return f"user {user}, {threads} threads, " + (
        "one capability, to reach the interpreter" if reading else "no capabilities"
    )


def _capabilities(kept: int) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(data)))


# --- Landlock -------------------------------------------------------------------------------------------------


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("folder", ctypes.c_int32))


def _landlock_version() -> int:
    version = int(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    return max(0, version) if sys.platform == "linux" else 0


def _landlock(settings: dict[str, Any], version: int) -> str:
    if not version:
        raise OSError("no Landlock")
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    handled = (1 << bits) - 1
    rules = _Ruleset(handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _checked(_libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0))
    for path in settings["readable"]:
        _allow(ruleset, path, _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0))  # noqa: PTH112
    for path in settings["listable"]:
        _allow(ruleset, path, _READ_DIR)
    _allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
    _allow(ruleset, ".", (_SCRATCH | (_REMOVE if "disk" in settings["shared"] else 0)) & handled)
    _checked(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    more = [word for word, since in (("TCP", 4), ("signals", 6)) if version >= since]
    return f"version {version}: files" + "".join(f", {word}" for word in more)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    rule = _Beneath(access, folder)
    _checked(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0))
    os.close(folder)


# --- seccomp --------------------------------------------------------------------------------------------------


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _seccomp() -> str:
    code = syscalls.allowlist(os.uname().machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Filter(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _checked(
        _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(program), ctypes.c_ulong(0), ctypes.c_ulong(0))
    )
    return "a list of allowed system calls; no sockets, processes or signals"
