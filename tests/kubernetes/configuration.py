"""The configuration files and command lines of the cluster's programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.kubernetes.credentials import NODE_NAME
from tests.kubernetes.keeper import NODE_ADDRESS
from tests.kubernetes.programs import CNI_PLUGINS, program

SERVICE_ADDRESSES: Final = "10.96.0.0/16"
POD_ADDRESSES: Final = "10.244.0.0/23"
DNS_ADDRESS: Final = "10.96.0.10"

MAX_PODS: Final = 300
"""A node's own limit is 110; a test starts 100 applications beside what is there."""

ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
"""The issuer of service accounts' tokens, and their audience where none is asked for; what an API
server is called by most that make clusters."""

API_PORT: Final = 6443
ETCD_PORT: Final = 2379

CONTAINERD: Final = """\
version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
[grpc]
  address = "{state}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "local.test/pause:1"
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE the kernel refuses a negative score, and no pod would start.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{state}/cni"
"""

KUBELET: Final = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {state}/pki/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: {state}/pki/kubelet.crt
tlsPrivateKeyFile: {state}/pki/kubelet.key
cgroupDriver: cgroupfs
cgroupRoot: /{group}
failSwapOn: false
failCgroupV1: false
containerRuntimeEndpoint: unix://{state}/containerd.sock
clusterDNS: [{dns}]
clusterDomain: cluster.local
resolvConf: {state}/resolv.conf
maxPods: {pods}
# Images cannot be pulled again, and the disk is the machine's.
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
registerNode: true
"""

PROXY: Final = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {state}/pki/kube-proxy.conf}}
mode: nftables
clusterCIDR: {pods}
hostnameOverride: {node}
# 0 leaves the machine's own settings alone.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"""

COREFILE: Final = """\
.:53 {{
  bind {address}
  errors
  ready {address}:8181
  hosts {state}/hosts {{
    ttl 1
    reload 1s
    fallthrough
  }}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {state}/pki/admin.conf
    ttl 5
  }}
}}
"""

DNS_SERVICE: Final = f"""\
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  clusterIP: {DNS_ADDRESS}
  ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-host
  namespace: kube-system
  labels: {{kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{{addresses: ["{NODE_ADDRESS}"], conditions: {{ready: true}}}}]
ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
"""
"""A Service that leads to the node's address: its DNS server is a process, not a pod."""


def network(state: Path) -> str:
    """Return what gives pods their addresses: one bridge, addresses handed out on this node."""
    ranges = [[{"subnet": POD_ADDRESSES}]]
    addresses = {"type": "host-local", "dataDir": f"{state}/addresses", "ranges": ranges}
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {**addresses, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "node", "plugins": [bridge, ports]})


def write_configuration(state: Path) -> None:
    """Write every configuration file of the node below *state*."""
    (state / "cni").mkdir()
    (state / "log").mkdir()
    (state / "manifests").mkdir()
    files = {
        "containerd.toml": CONTAINERD.format(state=state, plugins=CNI_PLUGINS),
        "kubelet.yaml": KUBELET.format(
            state=state, group=state.name, dns=DNS_ADDRESS, pods=MAX_PODS
        ),
        "kube-proxy.yaml": PROXY.format(state=state, pods=POD_ADDRESSES, node=NODE_NAME),
        "Corefile": COREFILE.format(state=state, address=NODE_ADDRESS),
        "dns.yaml": DNS_SERVICE,
        "cni/10-node.conflist": network(state),
        "resolv.conf": "nameserver 127.0.0.1\n",
        "hosts": "",
    }
    for name, content in files.items():
        (state / name).write_text(content, "utf-8")


def commands(state: Path) -> dict[str, Sequence[str]]:
    """Return the command line of each program, in the order they are started."""
    pki = state / "pki"
    return {
        "etcd": etcd(state / "etcd"),
        "containerd": [str(program("containerd")), "--config", f"{state}/containerd.toml"],
        "kube-apiserver": api_server(pki),
        "kube-controller-manager": _controllers(pki),
        "kube-scheduler": [
            str(program("kube-scheduler")),
            *_client(pki, "scheduler"),
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
        "kube-proxy": [str(program("kube-proxy")), f"--config={state}/kube-proxy.yaml"],
        "coredns": [str(program("coredns")), "-conf", f"{state}/Corefile"],
        "kubelet": [
            str(program("kubelet")),
            f"--config={state}/kubelet.yaml",
            f"--kubeconfig={pki}/kubelet.conf",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
            f"--root-dir={state}/kubelet",
            f"--cert-dir={state}/kubelet-pki",
            "-v=2",
        ],
    }


def etcd(data: Path, *, port: int = ETCD_PORT) -> Sequence[str]:
    """Return the command line of an etcd; *port* and the one after it are its own."""
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    return [
        str(program("etcd")),
        "--name=node1",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=node1={peer}",
        # A cluster that is thrown away needs no disk to be sure.
        "--unsafe-no-fsync",
    ]


def api_server(
    pki: Path, *, port: int = API_PORT, etcd_port: int = ETCD_PORT, issuer: str = ISSUER
) -> Sequence[str]:
    """Return the command line of an API server, whose tokens are of *issuer*."""
    return [
        str(program("kube-apiserver")),
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--secure-port={port}",
        f"--advertise-address={NODE_ADDRESS}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={issuer}",
        f"--service-account-key-file={pki}/tokens.pub",
        f"--service-account-signing-key-file={pki}/tokens.key",
        f"--api-audiences={issuer}",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def _controllers(pki: Path) -> Sequence[str]:
    return [
        str(program("kube-controller-manager")),
        *_client(pki, "controller-manager"),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki}/tokens.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
        f"--cluster-cidr={POD_ADDRESSES}",
        "--allocate-node-cidrs=false",
    ]


def _client(pki: Path, name: str) -> Sequence[str]:
    file = f"{pki}/{name}.conf"
    return [
        f"--kubeconfig={file}",
        f"--authentication-kubeconfig={file}",
        f"--authorization-kubeconfig={file}",
    ]
