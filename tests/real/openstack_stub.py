#!/usr/bin/env python3
"""Nova, Cinder, Neutron and Swift as far as clients list things: answers in the shapes of Nova 34, Cinder 29, Neutron 29
and Swift 2.38. Each is on a free port of 127.0.0.1; the first line of the output is their ports as a JSON object.

Links are absolute, as these services build them: SCHEME, and the Host of the request. Lists have pages of 5.

  openstack_stub.py SCHEME
"""
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

SCHEME = sys.argv[1]
COUNT, PAGE = 7, 5


class Service(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    # The versions of its API, and whether `/` is answered with 300.
    versions, choices = [], False
    # The lists it has, with what an element has besides `id`, `name` and `links`.
    lists = {}

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        path = [part for part in url.path.split('/') if part]
        if not path:
            documents = [self.version(*version) for version in self.versions]
            self.answer({'versions': documents}, 300 if self.choices else 200)
        elif len(path) == 1:
            documents = [self.version(*version) for version in self.versions if version[1] == path[0]]
            self.answer({'version': documents[0]} if documents else {'versions': []}, 200 if documents else 404)
        elif not self.headers.get('X-Auth-Token'):
            self.answer({'error': {'code': 401, 'message': 'no token', 'title': 'Unauthorized'}}, 401)
        else:
            detail = path[-1] == 'detail'
            name = path[-2] if detail else path[-1]
            above = path[:-2] if detail else path[:-1]
            self.list(name, above, dict(parse_qsl(url.query)), detail)

    def list(self, name, above, query, detail):
        if name not in self.lists:
            self.answer({'itemNotFound': {'code': 404, 'message': 'not found'}}, 404)
            return
        kind = self.lists[name]
        names = ['%s-%02d' % (name, number) for number in range(COUNT if kind is not None else 0)]
        if query.get('marker') in names:
            names = names[names.index(query['marker']) + 1:]
        page = names[:min(int(query.get('limit') or PAGE), PAGE)]
        base = '%s://%s' % (SCHEME, self.headers['Host'])
        here = '/'.join([base] + above)
        link = lambda rel, href: {'rel': rel, 'href': href}
        elements = [dict(kind, id=element, name=element, links=[
            link('self', '%s/%s/%s' % (here, name, element)), link('bookmark', '%s/%s/%s' % (base, name, element)),
        ]) for element in page]
        document = {name: elements}
        if len(page) < len(names):
            more = urlencode(dict(query, marker=page[-1]))
            document[name + '_links'] = [link('next', '%s/%s%s?%s' % (here, name, '/detail' if detail else '', more))]
        self.answer(document)

    def version(self, number, path, lowest, highest):
        return {
            'id': number, 'status': 'CURRENT', 'version': highest, 'min_version': lowest,
            'updated': '2013-07-23T11:33:21Z',
            'links': [{'rel': 'self', 'href': '%s://%s/%s/' % (SCHEME, self.headers['Host'], path)}],
        }

    def answer(self, document, status=200, fields=()):
        body = json.dumps(document).encode()
        self.send_response(status)
        for field in [('Content-Type', 'application/json'), ('Content-Length', str(len(body))), *fields]:
            self.send_header(*field)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)


class Nova(Service):
    versions = [('v2.1', 'v2.1', '2.1', '2.96')]
    lists = {
        'servers': {
            'status': 'ACTIVE', 'addresses': {}, 'image': '', 'tenant_id': 't', 'user_id': 'u', 'metadata': {},
            'flavor': {'original_name': 'm1', 'ram': 1, 'disk': 1, 'vcpus': 1, 'ephemeral': 0, 'swap': 0,
                       'extra_specs': {}},
            'OS-EXT-STS:task_state': None, 'OS-EXT-STS:power_state': 1,
        },
        'flavors': {'ram': 1, 'disk': 1, 'vcpus': 1, 'OS-FLV-EXT-DATA:ephemeral': 0, 'swap': ''},
        'extensions': None,
    }


class Cinder(Service):
    versions, choices = [('v3.0', 'v3', '3.0', '3.71')], True
    lists = {
        'volumes': {'status': 'available', 'size': 1, 'attachments': [], 'volume_type': 'x', 'bootable': 'false',
                    'display_name': 'v', 'metadata': {}, 'multiattach': False},
        'extensions': None,
    }


class Neutron(Service):
    versions = [('v2.0', 'v2.0', '', '')]
    lists = {
        'networks': {'status': 'ACTIVE', 'subnets': [], 'admin_state_up': True, 'shared': False, 'tenant_id': 't'},
        'extensions': None,
    }


class Swift(Service):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        """`/info`, and an account with one container and in it one object, which is JSON."""
        path = [part for part in urlsplit(self.path).path.split('/') if part]
        fields = [('X-Trans-Id', 'tx1'), ('X-Timestamp', '1700000000.00000'), ('X-Account-Container-Count', '1'),
                  ('X-Account-Object-Count', '1'), ('X-Account-Bytes-Used', '1')]
        more = 'marker=' in self.path and not self.path.endswith('marker=')
        if path == ['info']:
            self.answer({'swift': {}}, fields=fields)
        elif len(path) == 4:
            self.answer({'token': {'catalog': [{'endpoints': [{'url': '%s://%s/v1' % (SCHEME, self.headers['Host'])}]}]}},
                        fields=fields + [('ETag', 'e')])
        elif len(path) == 3:
            self.answer([] if more else [{'name': 'object', 'bytes': 1, 'hash': 'e', 'content_type': 'application/json',
                                          'last_modified': '2026-11-28T00:00:00.000000'}], fields=fields)
        else:
            self.answer([] if more else [{'name': 'container', 'count': 1, 'bytes': 1,
                                          'last_modified': '2026-11-28T00:00:00.000000'}], fields=fields)


def main():
    ports = {}
    for service in (Nova, Cinder, Neutron, Swift):
        server = ThreadingHTTPServer(('127.0.0.1', 0), service)
        ports[service.__name__.lower()] = server.server_port
        threading.Thread(target=server.serve_forever).start()
    print(json.dumps(ports), flush=True)


main()
