"""The system calls that an interpreter needs to compute, and a filter (classic BPF) that refuses all others.

Refused calls fail with EPERM. What is not on the list: sockets that can reach anything, new processes and programs,
signals, tracing, mounts, keys, io_uring, shared memory, changing modes, owners and times of files; what tells of the
machine's memory and disks, by which programs could talk to one another. Locks of files succeed and lock nothing, for
that reason: a program that keeps a small database has it for itself.
"""

from __future__ import annotations

import struct

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _KILL, _PRETEND, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050000, 0x00050000 | 1, 0x00050000 | 38
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_THREAD, _NAMESPACES = 0x00010000, 0x7E020000

_NUMBERS = """
read 0 63, write 1 64, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -, lseek 8 62, mmap 9 222,
mprotect 10 226, munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, access 21 -, pipe 22 -, select 23 -, sched_yield 24 124,
mremap 25 216, msync 26 227, dup 32 23, dup2 33 -, pause 34 -, nanosleep 35 101,
getitimer 36 102, alarm 37 -, setitimer 38 103, getpid 39 172, shutdown 48 210, exit 60 93, wait4 61 260, uname 63 160,
fsync 74 82, fdatasync 75 83, ftruncate 77 46, getdents 78 -, getcwd 79 17, chdir 80 49, fchdir 81 50,
rename 82 -, mkdir 83 -, rmdir 84 -, creat 85 -, unlink 87 -, symlink 88 -, readlink 89 -, umask 95 166,
gettimeofday 96 169, getrlimit 97 163, getrusage 98 165, times 100 153, getuid 102 174, getgid 104 176,
geteuid 107 175, getegid 108 177, getppid 110 173, getpgrp 111 -, getgroups 115 158, getresuid 118 148,
getresgid 120 150, getpgid 121 155, getsid 124 156, rt_sigpending 127 136, rt_sigtimedwait 128 137, sigaltstack 131 132,
gettid 186 178, futex 202 98, sched_getaffinity 204 123, getdents64 217 61,
set_tid_address 218 96, restart_syscall 219 128, clock_gettime 228 113, clock_getres 229 114,
clock_nanosleep 230 115, exit_group 231 94, epoll_wait 232 -, epoll_ctl 233 21, mkdirat 258 34,
newfstatat 262 79, unlinkat 263 35, renameat 264 38, symlinkat 266 36, readlinkat 267 78, faccessat 269 48,
pselect6 270 72, ppoll 271 73, set_robust_list 273 99, get_robust_list 274 100, epoll_pwait 281 22, eventfd2 290 19,
epoll_create1 291 20, dup3 292 24, pipe2 293 59, preadv 295 69, pwritev 296 70, getcpu 309 168, renameat2 316 276,
getrandom 318 278, statx 332 291, rseq 334 293, close_range 436 436, faccessat2 439 439
"""
_UNNAMED = 0x00400000
"""Of O_TMPFILE: a file that no name leads to, so that its size cannot be seen."""
_Conditions = list[tuple[int, int, int]]
"""Arguments (index, mask, value) as they must be."""
_CONDITIONAL: dict[str, tuple[tuple[int, int | None], list[_Conditions]]] = {  # several lists: several possibilities
    "ioctl": ((16, 29), [[(1, 0xFFFFFFFF, 0x5421)], [(1, 0xFFFFFFFF, 0x5451)]]),  # FIONBIO, FIOCLEX
    "open": ((2, None), [[(1, _UNNAMED, 0)]]),
    "openat": ((257, 56), [[(2, _UNNAMED, 0)]]),
    # Not F_SETOWN, which has the kernel send signals, nor what locks.
    "fcntl": ((72, 25), [[(1, 0xFFFFFFFF, command)] for command in (0, 1, 2, 3, 4, 1030)]),
    # Of what memory allocators ask for: other advice moves parts of shared files in and out of memory.
    "madvise": ((28, 233), [[(2, 0xFFFFFFFF, advice)] for advice in (4, 8, 14, 15)]),
    "clone": ((56, 220), [[(0, _THREAD | _NAMESPACES, _THREAD)]]),
    "prlimit64": ((302, 261), [[(0, 0xFFFFFFFF, 0)]]),
    # A pair of streams reaches nobody else: event loops wake themselves with it. Datagrams could be addressed.
    "socketpair": ((53, 199), [[(0, 0xFFFFFFFF, 1), (1, 0xF, 1)]]),
    "sendto": ((44, 206), [[(4, 0xFFFFFFFF, 0), (-4, 0xFFFFFFFF, 0)]]),
    "recvfrom": ((45, 207), [[(0, 0, 0)]]),
}
_PRETENDED: dict[str, tuple[tuple[int, int], list[_Conditions]]] = {
    "flock": ((73, 32), [[]]),
    "fcntl": ((72, 25), [[(1, 0xFFFFFFFF, command)] for command in (6, 7)]),  # F_SETLK, F_SETLKW
}
_CLONE3 = 435


def allowlist(machine: str) -> bytes:
    """The filter for a machine (`x86_64`, `aarch64`), as an array of `struct sock_filter`.

    Raises:
        ValueError: the numbers of this machine are not known here.
    """
    if machine not in _ARCHITECTURES:
        raise ValueError(f"no list of system calls for {machine}")
    column = list(_ARCHITECTURES).index(machine)
    code = [_step(_LOAD, 4), _step(_EQUAL, _ARCHITECTURES[machine], 1, 0), _step(_RETURN, _KILL), _step(_LOAD, 0)]
    for entry in _NUMBERS.split(","):
        number = entry.split()[1 + column]
        if number != "-":
            code += [_step(_EQUAL, int(number), 0, 1), _step(_RETURN, _ALLOW)]
    for table, answer in ((_CONDITIONAL, _ALLOW), (_PRETENDED, _PRETEND)):
        for numbers, possibilities in table.values():
            if (conditional := numbers[column]) is not None:
                for conditions in possibilities:
                    code += _conditional(conditional, conditions, answer)
    # The C library falls back to clone, whose flags a filter can see.
    code += [_step(_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _UNKNOWN), _step(_RETURN, _REFUSE)]
    return b"".join(code)


def _conditional(number: int, conditions: _Conditions, answer: int) -> list[bytes]:
    """Answer a call whose arguments fit; a negative index means the upper half of that argument."""
    length = 3 * len(conditions) + 2
    code = [_step(_EQUAL, number, 0, length)]
    for place, (argument, mask, value) in enumerate(conditions):
        offset = 16 + 8 * abs(argument) + (4 if argument < 0 else 0)
        remaining = length - 3 * (place + 1) - 1
        code += [_step(_LOAD, offset), _step(_AND, mask), _step(_EQUAL, value, 0, remaining)]
    # Whoever failed lands on the load that brings the number back.
    return [*code, _step(_RETURN, answer), _step(_LOAD, 0)]


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)
