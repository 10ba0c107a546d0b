"""Programs that mean harm, one table: name to source. They run in proven isolation only; see `test_hostile`.

A program finds `TRAP` (what is planted on the host) and `reached(what)`, which it calls when an attack worked.
"""

PRELUDE = """
import ctypes, json, os, signal, socket, sys, threading, time
TRAP = json.load(sys.stdin)
LIBC = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
def reached(what):
    print("REACHED", what, flush=True)
def call(on_x86, on_arm, *arguments):
    return LIBC.syscall(ctypes.c_long(on_x86 if X86 else on_arm), *arguments)
def attempt(act):
    try:
        reached(act())
    except (OSError, AttributeError):
        pass
"""

READ = {
    "read a file": "attempt(lambda: open(TRAP['secret']).read())",
    "read by a relative path": "attempt(lambda: open('../' * 20 + TRAP['secret']).read())",
    "read through a symbolic link": "os.symlink(TRAP['secret'], '/tmp/link'); attempt(lambda: open('/tmp/link').read())",
    "read through a hard link": "attempt(lambda: os.link(TRAP['secret'], '/tmp/link'))",
    "read through proc": """
for path in ("/proc/1/root", "/proc/self/cwd/..", "/proc/self/root", f"/proc/{TRAP['pid']}/root"):
    attempt(lambda: open(path + TRAP["secret"]).read())
""",
    "read the environment of others": """
for pid in ("self", 1, TRAP["pid"]):
    attempt(lambda: open(f"/proc/{pid}/environ", "rb").read())
""",
    "read its own environment": """
environment = ctypes.POINTER(ctypes.c_char_p).in_dll(LIBC, "environ")
texts, at = [*os.environ.values()], 0
while environment and environment[at]:
    texts.append(environment[at].decode()); at += 1
if any(TRAP["word"] in text for text in texts): reached("environment")
""",
    "mount proc and read": "reached('mount') if LIBC.mount(b'proc', b'/tmp', b'proc', 0, None) == 0 else None",
    "mount the root elsewhere": "reached('mount') if LIBC.mount(b'/', b'/tmp', None, 4096 | 16384, None) == 0 else None",
    "take the root mount apart": """
for place in (b"/", b"/tmp", b"/usr/lib", b"/aha"):
    if LIBC.umount2(place, 2) == 0: reached(place)
""",
    "mount by the new calls": "reached('fsopen') if call(430, 430, b'tmpfs', 0) >= 0 else None",
    "read by a file handle": """
handle = ctypes.create_string_buffer(bytes([128, 0, 0, 0]) + bytes(200))
mount = ctypes.c_int()
if call(303, 264, -100, b"/usr/lib", handle, ctypes.byref(mount), 0) == 0:
    root = ctypes.create_string_buffer(bytes([8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]))
    if call(304, 265, os.open("/usr/lib", os.O_RDONLY), root, 0) >= 0: reached("handle")
""",
    "leave by chroot": "os.mkdir('/tmp/d'); attempt(lambda: os.chroot('/tmp/d') or 'chroot')",
    "leave by pivot_root": "os.mkdir('/tmp/d'); reached('pivot') if LIBC.pivot_root(b'/tmp', b'/tmp/d') == 0 else None",
    "join the namespaces of process 1": """
handle = os.pidfd_open(1)
if LIBC.setns(handle, 0x7E020000) == 0: reached("setns")
""",
    "find the tests": """
names = []
for folder, folders, files in os.walk("/"):
    names += folders + files
    folders[:] = [name for name in folders if not name.startswith(("lib", "python3"))]
if any(os.path.basename(TRAP["folder"]) in name or "humaneval" in name.lower() for name in names): reached("tests")
""",
    "read what was installed": """
library = os.path.dirname(os.__file__)
for folder in (library, "/usr/lib/python3", "/usr/lib/python3.11", "/usr/local/lib/python3.11"):
    for name in ("site-packages", "dist-packages"):
        attempt(lambda: os.listdir(os.path.join(folder, name))[0] if os.listdir(os.path.join(folder, name)) else open("/no"))
""",
    "read memory of process 1": """
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8)
if call(310, 270, 1, vector, 1, vector, 1, 0) > 0: reached("memory")
attempt(lambda: open("/proc/1/mem", "rb").read(1))
""",
    "open devices": """
for name in ("mem", "kmem", "kmsg", "sda", "vda", "tty", "fuse", "kvm", "net/tun", "vsock", "shm"):
    attempt(lambda: open("/dev/" + name, "rb").read(1) or name)
attempt(lambda: os.mknod("/tmp/device", 0o20666, os.makedev(1, 1)) or open("/tmp/device", "rb").read(1))
""",
    "read kernel settings": "attempt(lambda: os.listdir('/sys')); attempt(lambda: os.listdir('/proc/sys'))",
}

WRITE = {
    "write a file": "attempt(lambda: open(TRAP['folder'] + '/x', 'w').write('x'))",
    "write everywhere": """
for folder in ("/", "/usr", "/usr/lib", "/etc", "/aha", "/dev", "/home", "/root", "/var/tmp", os.path.dirname(os.__file__)):
    attempt(lambda: open(folder + "/x", "w").write("x"))
""",
    "replace the server": """
path = "/aha/aha/grading/sandbox/inside/server.py"
attempt(lambda: open(path, "a").write("x")); attempt(lambda: os.remove(path) or path)
attempt(lambda: os.rename("/aha", "/tmp/aha") or path)
""",
    "replace the interpreter": """
attempt(lambda: os.chmod(sys.executable, 0o777) or "chmod"); attempt(lambda: open(sys.executable, "r+b").write(b"x"))
attempt(lambda: os.truncate(os.__file__, 0) or "truncate"); attempt(lambda: os.utime(os.__file__) or "utime")
""",
    "remount to write": "reached('remount') if LIBC.mount(None, b'/', None, 32, None) == 0 else None",
    "delete a file": "attempt(lambda: os.remove(TRAP['secret']) or 'deleted')",
    "write through a raced link": """
def swap():
    while True:
        for target in (TRAP["folder"] + "/x", "/tmp/y"):
            try:
                os.symlink(target, "/tmp/new"); os.replace("/tmp/new", "/tmp/race")
            except OSError:
                pass
threading.Thread(target=swap, daemon=True).start()
for _ in range(300):
    try:
        open("/tmp/race", "w").write("x")
    except OSError:
        pass
""",
    "write late from a daemon": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(0.05)
            try:
                open("/tmp/late", "w").write("x"); open(TRAP["folder"] + "/late", "w").write("x")
            except OSError:
                pass
    os._exit(0)
""",
    "leave a module for the next": """
for name in ("json", "socket", "sitecustomize", "usercustomize", "encodings"):
    open(f"/tmp/{name}.py", "w").write("print('planted')")
""",
    "lock the scratch folder": """
open('/tmp/x', 'w').write('x'); os.mkdir('/tmp/d'); os.chmod('/tmp/d', 0)
try:
    os.chmod('/tmp', 0)  # where the sandbox was built by an ordinary user, the folder is the program's own
except OSError:
    pass
""",
    "make a program of root's": """
open("/tmp/su", "w").write("#!/usr/bin/python3\\nprint('REACHED')"); os.chmod("/tmp/su", 0o6755)
attempt(lambda: os.chown("/tmp/su", 0, 0) or "chown")
if os.stat("/tmp/su").st_uid == 0: reached("root's file")
""",
    "dump core": "LIBC.abort()",
    "run a shell": "os.system('cat ' + TRAP['secret'] + '; echo x > ' + TRAP['folder'] + '/x')",
    "leave a shared memory segment": "reached('shmget') if LIBC.shmget(77, 4096, 0o1666) >= 0 else None",
    "leave a message queue": "reached('mq_open') if call(240, 180, b'q', 0o102, 0o600, None) >= 0 else None",
    "leave a key": "reached('add_key') if call(248, 217, b'user', b'x', b'y', 1, -4) >= 0 else None",
}

CONNECT = {
    "connect by TCP": "attempt(lambda: socket.create_connection(('127.0.0.1', TRAP['port']), 1) and 'tcp')",
    "connect by IPv6": "attempt(lambda: socket.create_connection(('::1', TRAP['port']), 1) and 'tcp6')",
    "send by UDP": "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', TRAP['port'])))",
    "connect to an abstract socket": """
def connect():
    connection = socket.socket(socket.AF_UNIX); connection.connect(chr(0) + TRAP["abstract"]); return "abstract"
attempt(connect)
""",
    "connect to a socket file": """
def connect():
    connection = socket.socket(socket.AF_UNIX); connection.connect(TRAP["folder"] + "/socket"); return "file"
attempt(connect)
""",
    "open a raw socket": "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) and 'raw')",
    "open a packet socket": "attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW) and 'packet')",
    "open a netlink socket": "attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) and 'netlink')",
    "open a socket to the machine around": "attempt(lambda: socket.socket(40, socket.SOCK_STREAM) and 'vsock')",
    "open a socket to the kernel's ciphers": "attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET) and 'alg')",
    "use descriptors that were left open": """
for descriptor in range(3, 300):
    try:
        os.fstat(descriptor); reached(descriptor)
    except OSError:
        pass
""",
}

OTHERS = {
    "kill the parent": "os.kill(os.getppid(), 9); os.kill(1, 9)",
    "kill everybody": "os.kill(-1, 9)",
    "kill its group": "os.killpg(0, 9)",
    "stop its group": "os.killpg(0, signal.SIGSTOP)",
    "stop process 1": "os.kill(1, signal.SIGSTOP)",
    "storm of signals": """
for _ in range(20):
    for number in range(1, 65):
        if number not in (9, 19):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
            os.kill(1, number)
os.killpg(0, signal.SIGHUP)
""",
    "signal the trainer": """
for pid in (TRAP["pid"], TRAP["trainer"]):
    try:
        os.kill(pid, 0) if pid > 20 else os.kill(10**6, 0)
        reached(pid)
    except OSError:
        pass
""",
    "trace process 1": "reached('attach') if LIBC.ptrace(16, 1, None, None) == 0 else None",
    "be traced and exit": "LIBC.ptrace(0, 0, None, None); os.kill(os.getpid(), signal.SIGSTOP)",
    "let children be traced": """
for _ in range(5):
    if os.fork() == 0:
        LIBC.ptrace(0, 0, None, None); os.kill(os.getpid(), signal.SIGSTOP); os._exit(0)
""",
    "take descriptors of process 1": """
handle = os.pidfd_open(1)
for number in range(10):
    if call(438, 438, handle, number, 0) >= 0: reached(number)
""",
    "become root": """
for act in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    attempt(lambda: act() or "root")
""",
    "take capabilities": """
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
if LIBC.capset(header, (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)) == 0: reached("capset")
""",
    "make a user namespace": "reached('unshare') if LIBC.unshare(0x10000000) == 0 else None",
    "clone into a user namespace": """
child = call(56, 220, ctypes.c_ulong(0x10000000 | 17), 0, 0, 0, 0)
if child == 0: os._exit(0)
if child > 0: reached("clone")
""",
    "clone3 into a user namespace": """
arguments = (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17, 0, 0, 0)
child = call(435, 435, arguments, ctypes.c_size_t(64))
if child == 0: os._exit(0)
if child > 0: reached("clone3")
""",
    "load a kernel program": "reached('bpf') if call(321, 280, 0, (ctypes.c_uint64 * 8)(2, 4 << 32 | 4), 64) >= 0 else None",
    "watch the processor": "reached('perf') if call(298, 241, (ctypes.c_uint32 * 32)(1, 128), 0, -1, -1, 0) >= 0 else None",
    "handle page faults": "reached('userfaultfd') if call(323, 282, 1) >= 0 else None",
    "queue system calls": "reached('io_uring') if call(425, 425, 4, (ctypes.c_uint64 * 32)()) >= 0 else None",
    "rename the machine": "attempt(lambda: socket.sethostname('x') or 'renamed')",
    "take priority": """
attempt(lambda: os.nice(-5) < 0 or "nice")
attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10)) or "realtime")
""",
    "type into the terminal": """
import fcntl
for descriptor in (0, 1, 2):
    attempt(lambda: fcntl.ioctl(descriptor, 0x5412, b"x") or "terminal")
""",
    "lift its limits": """
import resource
for limit in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
    try:
        resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)); reached(limit)
    except (ValueError, OSError):
        pass
""",
}

EXHAUST = {
    "loop": "while True: pass",
    "loop deaf to signals": "for n in range(1, 32):\n    if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
    "sleep": "time.sleep(3600)",
    "stop itself": "os.kill(os.getpid(), signal.SIGSTOP)",
    "one endless call": "9 ** 9 ** 9",
    "an endless match": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "close everything and loop": "os.closerange(0, 64)\nwhile True: pass",
    "bomb of processes": "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "bomb of threads": """
def spin():
    while True: pass
while True:
    try:
        threading.Thread(target=spin, daemon=True).start()
    except (RuntimeError, MemoryError):
        pass
""",
    "hop from process to process": """
while True:
    try:
        if os.fork() > 0: os._exit(0)
    except OSError:
        pass
    os.setsid() if os.getpid() != os.getsid(0) else None
""",
    "wait for a daemon": """
if os.fork() == 0:
    os.setsid(); time.sleep(3600)
os.wait()
""",
    "leave daemons with the output": """
for _ in range(5):
    if os.fork() == 0:
        os.setsid(); signal.signal(15, signal.SIG_IGN); time.sleep(3600)
""",
    "bomb of memory": "blocks = []\nwhile True: blocks.append(bytearray(64 << 20))",
    "bomb of shared memory": "import mmap\nmaps = []\nwhile True:\n    maps.append(mmap.mmap(-1, 64 << 20)); maps[-1].write(bytes(64 << 20))",
    "bomb of hidden files": "reached('memfd') if call(319, 279, b'x', 0) >= 0 else None",
    "bomb of output": "while True: os.write(1, b'x' * 65536)",
    "bomb of errors": "while True: os.write(2, b'x' * 65536)",
    "unpack a bomb": "import zlib; print(len(zlib.decompress(zlib.compress(bytes(200 << 20)))) and zlib.decompress(zlib.compress(bytes(400 << 20)) * 9))",
    "fill the scratch folder": """
for number in range(1000):
    with open(f"/tmp/{number}", "wb") as file:
        file.write(bytes(1 << 20))
""",
    "a large file": "open('/tmp/x', 'wb').write(bytes(64 << 20))",
    "many files": "for number in range(10**6): open(f'/tmp/{number}', 'w').close()",
    "a deep folder": "while True: os.mkdir('d'); os.chdir('d')",
    "many descriptors": "files = []\nwhile True: files.append(os.pipe())",
    "descend without end": "def f(): f()\nsys.setrecursionlimit(10**9); f()",
    "crash": "ctypes.string_at(0)",
    "ill-formed output": "os.write(1, bytes(range(256)) * 10); print('\\ud800\\u202e\\x1b]0;x\\x07' + chr(0) * 100); os.write(2, b'\\xff\\xfe')",
    "replace its streams": "sys.stdout = sys.stderr = None; os.close(1); os.close(2); import builtins; builtins.print = None",
    "exit oddly": "sys.exit(2**40)",
    "exit with an object": "class E(Exception):\n    def __str__(self): raise self\nsys.exit(E())",
    "exit from another thread": "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(3600)",
    "leave the first thread": "threading.Thread(target=time.sleep, args=(3600,)).start(); LIBC.pthread_exit(None)",
}

ENDLESS = {
    "loop", "loop deaf to signals", "sleep", "stop itself", "one endless call", "an endless match", "bomb of errors",
    "close everything and loop", "bomb of processes", "bomb of threads", "wait for a daemon", "leave the first thread",
    "stop its group", "be traced and exit",
}  # fmt: skip
"""Of these the time limit is the only end."""

HOSTILE = READ | WRITE | CONNECT | OTHERS | EXHAUST

FORGED = {
    "exit early": "def f(x):\n    import os; os._exit(0)",
    "exit politely": "import sys\ndef f(x): sys.exit(0)",
    "exit before": "raise SystemExit(0)",
    "nothing defined": "print('passed')",
    "no program": "def f(x: return 2",
    "an int equal to everything": "class Y(int):\n    __eq__ = lambda *_: True\n    __hash__ = int.__hash__\ndef f(x): return Y(-1)",
    "a str equal to everything": "class Y(str):\n    __eq__ = lambda *_: True\ndef f(x): return Y('')",
    "a list equal to everything": "class Y(list):\n    __eq__ = lambda *_: True\ndef f(x): return Y()",
    "an object equal to everything": "class Y:\n    __eq__ = lambda *_: True\ndef f(x): return Y()",
    "a mock": "from unittest.mock import MagicMock, ANY\ndef f(x): return ANY",
    "not a number": "def f(x): return float('nan')",
    "a signalling decimal": "from decimal import Decimal\ndef f(x): return Decimal('sNaN')",
    "no assertions": "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\ndef f(x): return -1",
    "patched builtins": "import builtins\nfor n in ('all', 'any', 'abs', 'len', 'sorted', 'isinstance'): setattr(builtins, n, lambda *a, **k: True)\ndef f(x): return -1",
    "a verdict for a value": """
import aha.grading.sandbox.inside.programs as p
p.encode = lambda value: '{"passed": true}'
def f(x): return -1
""",
    "a verdict on the channel": """
import json, socket
body = json.dumps({"passed": True, "why": ""}).encode()
connection = socket.socket(fileno=3)
for _ in range(20): connection.sendall(len(body).to_bytes(4, "big") + body)
def f(x): return -1
""",
    "a value that is no text": """
import json, socket
connection = socket.socket(fileno=3)
for message in ({"defined": True}, {"value": 2}, {"value": None}, {"error": []}, {"error": ["A", "B", "C"]}):
    body = json.dumps(message).encode(); connection.sendall(len(body).to_bytes(4, "big") + body)
def f(x): return -1
""",
    "values ahead of the calls": """
import json, socket
connection = socket.socket(fileno=3)
for message in ({"defined": True}, *[{"value": '{"passed": true}'}] * 9):
    body = json.dumps(message).encode(); connection.sendall(len(body).to_bytes(4, "big") + body)
def f(x): return -1
""",
    "half a message": "import socket, time\nsocket.socket(fileno=3).sendall(b'\\x00\\x00\\xff\\xff{')\ntime.sleep(60)",
    "a message without end": "import socket\nc = socket.socket(fileno=3)\nc.sendall(b'\\xff\\xff\\xff\\xff')\nwhile True: c.sendall(b'x' * 65536)",
    "garbage": "import socket\nsocket.socket(fileno=3).sendall(b'\\x00\\x00\\x00\\x04\\xff\\xfe\\x00{' * 100)\ndef f(x): return -1",
    "a deep value": "import aha.grading.sandbox.inside.programs as p\np.encode = lambda value: '[' * 100000 + ']' * 100000\ndef f(x): return -1",
    "a deep message": "import socket\nb = b'[' * 100000\nsocket.socket(fileno=3).sendall(len(b).to_bytes(4, 'big') + b)\ndef f(x): return -1",
    "a value of no kind": "import aha.grading.sandbox.inside.programs as p\np.encode = lambda value: '{\"evil\": 1}'\ndef f(x): return -1",
    "a number of many digits": "def f(x): return 10 ** 100000",
    "a value of many megabytes": "def f(x): return 'x' * (50 << 20)",
    "an endless value": "def f(x):\n    a = []; a.append(a); return a",
    "an exception that passes": "class KeyboardInterrupt(BaseException): pass\ndef f(x): raise KeyboardInterrupt()",
    "an exception without words": "class E(Exception):\n    def __str__(self): raise self\ndef f(x): raise E()",
    "expected outputs in memory": """
import gc
def f(x):
    for thing in gc.get_objects():
        try:
            if isinstance(thing, (list, tuple, dict, set)) and 777123 in thing: return 777123
            if isinstance(thing, (list, tuple, dict)) and "777123" in repr(thing) and "def check" in repr(thing): return 777123
        except BaseException:
            pass
    return -1
""",
    "expected outputs in frames": """
import sys
def f(x):
    frame = sys._getframe()
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_code.co_consts]:
            if value == 777123 or (isinstance(value, str) and "check(" in value): return 777123
        frame = frame.f_back
    return -1
""",
    "expected outputs by asking around": """
import sys, inspect, linecache
def f(x):
    for module in list(sys.modules.values()):
        for name in ("check", "test", "candidate", "METADATA"):
            if callable(getattr(module, name, None)) and module.__name__ in ("check", "__main__", "test"): return 777123
    return 777123 if any("777123" in "".join(v[2]) for v in linecache.cache.values() if len(v) > 2) else -1
""",
    "two processes that answer": "import os\nos.fork()\ndef f(x): return -1",
    "an answer and an end": "import os, threading\ndef f(x):\n    threading.Timer(0.01, os._exit, (0,)).start(); return -1",
    "an endless call": "def f(x):\n    while True: pass",
    "an endless definition": "while True: pass",
    "an argument changed": "def f(x):\n    if isinstance(x, list): x.clear()\n    return []",
}
"""As functions `f` to be tested; every one is wrong, and none may pass."""
