"""Enough of ClickHouse's HTTP interface for the tests, in front of chdb.

Usage: chdb_server.py PORT DIRECTORY
"""

import http.server
import os
import re
import struct
import sys
import threading
import urllib.parse

import chdb.session
import lz4.block

INSERT = re.compile(r"INSERT INTO (\S+?)\s*\((.*)\) FORMAT RowBinary\s*$", re.S)
SETTINGS = ("max_query_size", "insert_distributed_sync", "insert_deduplicate", "load_balancing")


def decompressed(body):
    """The content of ClickHouse's frames: checksum, method, sizes, data."""
    parts = []
    while body:
        method, size, size_unpacked = struct.unpack_from("<BII", body, 16)
        if method != 0x82:
            raise ValueError(f"compression method {method:#x} is not LZ4")
        parts.append(lz4.block.decompress(body[25 : 16 + size], uncompressed_size=size_unpacked))
        body = body[16 + size :]
    return b"".join(parts)


class Engine:
    def __init__(self, directory):
        self.session = chdb.session.Session(directory)
        self.lock = threading.Lock()
        self.file = os.path.join(directory, "insert.bin")

    def run(self, query, database, settings, output="TabSeparated"):
        with self.lock:
            for name, value in settings:
                # A name that the engine does not know is an error, as it would be by HTTP.
                self.session.query(f"SET {name} = '{value}'")
            if database:
                self.session.query(f"USE `{database}`")
            return self.session.query(query, output).bytes()

    def insert(self, query, rows, database, settings):
        table, columns = INSERT.match(query).groups()
        plain = table.replace("`", "")
        types = self.run(
            f"SELECT name, type FROM system.columns WHERE database = '{database}' AND table = '{plain}'",
            None,
            settings,
        ).decode()
        types = dict(line.split("\t", 1) for line in types.splitlines())
        names = [name.strip(" `") for name in columns.split(",")]
        structure = ", ".join(f"{name} {types[name]}" for name in names)
        with self.lock:
            with open(self.file, "wb") as file:
                file.write(rows)
            self.session.query(f"USE `{database}`")
            self.session.query(
                f"INSERT INTO {table} ({columns}) SELECT * FROM file('{self.file}', 'RowBinary', '{structure}')"
            )
        return b""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        parameters = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        body = self.body()
        database = parameters.get("database")
        settings = [(name, parameters[name]) for name in SETTINGS if name in parameters]
        try:
            if "query" in parameters:
                rows = decompressed(body) if parameters.get("decompress") == "1" else body
                answer = self.server.engine.insert(parameters["query"], rows, database, settings)
            else:
                output = parameters.get("default_format", "TabSeparated")
                answer = self.server.engine.run(body.decode(), database, settings, output)
            status = 200
        except Exception as error:
            answer, status = str(error).encode(), 500
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.engine = Engine(sys.argv[2])
    server.serve_forever()


main()
