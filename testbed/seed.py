"""What a cloud has before its first server: users, endpoints, networks, flavors, images, volume types, a DNS zone.

Runs on the controller, with the services' Python.  What is there already is left as it is.

    seed.py identity            before the services start: nova-conductor and nova-scheduler ask Keystone for a token
                                first, and end if there is no such user
    seed.py zone NAME           prints the id of the DNS zone
    seed.py cloud GUEST         the directory with the guests' kernel and initial file system
    seed.py zones ZONE=HOST …   availability zones
"""

import sys
from pathlib import Path
from typing import Any

import openstack

ADDRESS = "http://10.77.0.1"
ENDPOINTS = {
    "compute": ("nova", f"{ADDRESS}:8774/v2.1"),
    "placement": ("placement", f"{ADDRESS}:8778"),
    "image": ("glance", f"{ADDRESS}:9292"),
    "block-storage": ("cinder", f"{ADDRESS}:8776/v3"),
    "volumev3": ("cinderv3", f"{ADDRESS}:8776/v3"),
    "network": ("neutron", f"{ADDRESS}:9696"),
    "dns": ("designate", f"{ADDRESS}:9001"),
}


def identity(cloud: Any) -> None:
    keystone = cloud.identity
    roles = {role.name: role for role in keystone.roles()}
    for name in ("service", "admin", "member", "reader"):
        roles[name] = roles.get(name) or keystone.create_role(name=name)
    projects = {project.name: project for project in keystone.projects()}
    for name in ("service", "demo"):
        projects[name] = projects.get(name) or keystone.create_project(name=name, domain_id="default")
    users = {user.name: user for user in keystone.users()}
    for name in ("nova", "placement", "neutron", "glance", "cinder", "designate", "demo"):
        if name not in users:
            users[name] = keystone.create_user(name=name, password="secret", domain_id="default")
    for name, user in users.items():
        if name == "admin":
            keystone.assign_project_role_to_user(projects["demo"], user, roles["admin"])
        elif name == "demo":
            keystone.assign_project_role_to_user(projects["demo"], user, roles["member"])
        else:
            for role in ("admin", "service"):
                keystone.assign_project_role_to_user(projects["service"], user, roles[role])
    services = {service.type: service for service in keystone.services()}
    present = {(endpoint.service_id, endpoint.interface) for endpoint in keystone.endpoints()}
    for kind, (name, url) in ENDPOINTS.items():
        service = services.get(kind) or keystone.create_service(type=kind, name=name)
        for interface in ("public", "internal"):
            if (service.id, interface) not in present:
                keystone.create_endpoint(service_id=service.id, interface=interface, url=url, region_id="RegionOne")


def zone(cloud: Any, name: str) -> None:
    found = next(cloud.dns.zones(name=name), None)
    print((found or cloud.dns.create_zone(name=name, email="hostmaster@example.net")).id)


def seed(cloud: Any, guest: Path) -> None:
    for name, ram in (("m1.small", 128), ("m1.bigger", 192)):
        if not cloud.compute.find_flavor(name):
            cloud.compute.create_flavor(name=name, ram=ram, vcpus=1, disk=1)

    def image(name: str, form: str, data: bytes, **properties: str) -> Any:
        return cloud.image.find_image(name) or cloud.image.create_image(
            name=name, disk_format=form, container_format=form, visibility="public", data=data,
            validate_checksum=False, **properties,
        )  # fmt: skip

    kernel = image("linux-kernel", "aki", (guest / "vmlinuz").read_bytes())
    initrd = image("linux-initrd", "ari", (guest / "initrd.gz").read_bytes())
    image("linux", "ami", bytes(1 << 20), kernel_id=kernel.id, ramdisk_id=initrd.id, hw_vif_model="virtio",
          hw_disk_bus="virtio")  # fmt: skip
    networks = cloud.network
    inner = networks.find_network("net0") or networks.create_network(name="net0", is_shared=True)
    if not networks.find_subnet("sub0"):
        networks.create_subnet(network_id=inner.id, name="sub0", ip_version=4, cidr="10.20.0.0/16")
    outer = networks.find_network("ext") or networks.create_network(
        name="ext", is_router_external=True, provider_network_type="flat", provider_physical_network="physnet1"
    )
    if not networks.find_subnet("extsub"):
        networks.create_subnet(
            network_id=outer.id, name="extsub", ip_version=4, cidr="172.24.4.0/24", is_dhcp_enabled=False
        )
    types = {kind.name for kind in cloud.block_storage.types()}
    for name, backend in {"rbd": "rbd", "rbd, too": "rbd", "rbd2": "rbd2", "fake": "fake"}.items():
        if name not in types:
            cloud.block_storage.create_type(name=name, extra_specs={"volume_backend_name": backend})


def zones(cloud: Any, *members: str) -> None:
    """Availability zones: what may be migrated stays among hosts that can take it."""
    present = {aggregate.name: aggregate for aggregate in cloud.compute.aggregates()}
    for member in members:
        name, host = member.split("=")
        if name not in present:
            present[name] = cloud.compute.create_aggregate(name=name, availability_zone=name)
        if host not in (present[name].hosts or []):
            present[name] = cloud.compute.add_host_to_aggregate(present[name], host)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    connection = openstack.connect(cloud="admin")
    if what == "identity":
        identity(connection)
    elif what == "zone":
        zone(connection, *arguments)
    elif what == "zones":
        zones(connection, *arguments)
    else:
        seed(connection, Path(*arguments))
