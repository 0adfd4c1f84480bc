"""What an administrator does who keeps a catalog as it should be: lists all endpoints, and writes each back with what
was listed and `enabled` set. By the client's variables `OS_*`; one line for each endpoint."""
import os

from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystoneclient.v3 import client

auth = v3.Password(
    auth_url=os.environ['OS_AUTH_URL'], username=os.environ['OS_USERNAME'], password=os.environ['OS_PASSWORD'],
    project_name=os.environ['OS_PROJECT_NAME'], user_domain_id='default', project_domain_id='default')
keystone = client.Client(session=session.Session(auth=auth))
for endpoint in keystone.endpoints.list():
    keystone.endpoints.update(
        endpoint.id, service=endpoint.service_id, url=endpoint.url, interface=endpoint.interface,
        region=endpoint.region, enabled=True)
    one = keystone.endpoints.get(endpoint.id)
    keystone.endpoints.update(one, url=one.url)
    print(one.id, one.url)
