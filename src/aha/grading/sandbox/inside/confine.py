"""The last doors, closed from inside: rights, system calls and resources.

The namespaces that the backends set up are the wall. What is here stands behind it: no rights even where the wall was
built by root, no system calls that only attacks on the kernel need, and limits on what one program may use up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys

NOBODY = 65534
CLONE_NEWUSER = 0x10000000
_ALL_NAMESPACES = 0x7E020000  # CLONE_NEW{USER,PID,NET,UTS,IPC,NS,CGROUP}
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 22, 24, 38, 47
_CAPABILITY_VERSION_3 = 0x20080522
_EPERM, _ENOSYS = 1, 38

# Number on x86-64, number on aarch64 (asm/unistd_64.h, asm-generic/unistd.h).
DENIED_CALLS = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429), "mq_open": (240, 180),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438), "pivot_root": (155, 41),
    "process_madvise": (440, 440), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "ptrace": (101, 117), "quotactl": (179, 60), "reboot": (169, 142), "request_key": (249, 218),
    "semget": (64, 190), "setns": (308, 268), "settimeofday": (164, 170), "shmget": (29, 194), "socket": (41, 198),
    "swapoff": (168, 225), "swapon": (167, 224), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def drop_rights() -> None:
    """Becomes nobody without capabilities, for good; and unreadable to what this process starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        libc.unshare(CLONE_NEWUSER)  # a process count of its own, apart from nobody's on the host; may be refused
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit("the sandbox could not give up its rights")
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def filter_system_calls() -> bool:
    """Denies the system calls of `DENIED_CALLS`, and `clone` with new namespaces, with "not permitted".

    Returns:
        Whether a filter is in place; there is none on other processors or where the kernel has no seccomp.
    """
    if platform.machine() not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    column, architecture = _ARCHITECTURES[platform.machine()]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, denied, unknown = 0x7FFF0000, 0x80000000, 0x00050000 | _EPERM, 0x00050000 | _ENOSYS
    code: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill),
        (load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (give, 0, 0, denied),  # the x32 calls
        (equal, 0, 1, _CLONE3[column]), (give, 0, 0, unknown),  # the C library then takes clone
        (equal, 0, 4, _CLONE[column]), (load, 0, 0, 16), (any_bit, 0, 1, _ALL_NAMESPACES), (give, 0, 0, denied),
        (give, 0, 0, allow),
    ]  # fmt: skip
    for numbers in DENIED_CALLS.values():
        code += [(equal, 0, 1, numbers[column]), (give, 0, 0, denied)]
    code.append((give, 0, 0, allow))
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = _Program(len(code), ctypes.cast(packed, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0) == 0


def limit_resources(cpu_seconds: int, memory_bytes: int, file_bytes: int, processes: int) -> None:
    """Sets hard limits on this process and what it starts: CPU, address space, file sizes, processes, files, cores."""
    for what, most in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_STACK, 8 << 20),
    ):
        with contextlib.suppress(ValueError, OSError):  # already lower than that
            resource.setrlimit(what, (most, most))
