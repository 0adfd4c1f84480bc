"""What Glance 15 needs to run beside the libraries of today. Nothing in it touches HTTP or TLS.

Python imports this module by itself when its folder is on PYTHONPATH.
"""
import socket
from sqlite3 import dbapi2

# sqlalchemy-migrate of that time rebuilds tables by renaming them. Since 3.26 SQLite then rewrites the
# references in other tables too, and the migrations end in a schema with dangling names.
_plain_connect = dbapi2.connect


def _connect(*args, **kwargs):
    connection = _plain_connect(*args, **kwargs)
    connection.execute('PRAGMA legacy_alter_table = ON')
    return connection


dbapi2.connect = _connect

# eventlet 0.20 brings its own resolver, which waits half a minute for AAAA answers where no name server is.
# EVENTLET_NO_GREENDNS covers `import eventlet`; its green socket module is given the system's functions here.
_system = dict((name, getattr(socket, name))
               for name in ('getaddrinfo', 'gethostbyname', 'gethostbyname_ex', 'getnameinfo'))
try:
    from eventlet.green import socket as _green
except ImportError:
    pass  # this interpreter is not the one with Glance in it, as when pip runs
else:
    for _name, _function in _system.items():
        setattr(_green, _name, _function)
