//! The configuration files of a node's containerd, kubelet, kube-proxy and pod network.
//!
//! Every path in them is below the node's own folder: three nodes share one file system.

use std::path::Path;

use crate::binaries::Binaries;
use crate::network::{HOST, Node, PODS};
use crate::pki::Pki;

/// The pod network: a bridge in the node's namespace.
pub fn pod_network(node: &Node, folder: &Path) -> String {
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "{}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#,
        folder.join("ipam").display(),
        node.pods
    )
}

/// containerd's configuration.
pub fn containerd(folder: &Path, binaries: &Binaries, runc: &Path, pause: &str) -> String {
    let folder = folder.display();
    let shim = binaries.path("shim");
    // Negative scores cannot be set on every machine; a network namespace kept below the state folder is surely ours;
    // the plugins that are off would share a socket or a folder between nodes, or look for disks.
    format!(
        r#"version = 3
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/containerd.ttrpc.sock"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = "{}"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{}"
      Root = "{folder}/runc"
      SystemdCgroup = false
"#,
        shim.display(),
        runc.display()
    )
}

/// The kubelet's configuration.
pub fn kubelet(node: &Node, folder: &Path, pki: &Pki) -> String {
    let Node { name, address, .. } = node;
    let (ca, crt, key) =
        (pki.path("ca.crt"), pki.path(&format!("{name}.crt")), pki.path(&format!("{name}.key")));
    let folder = folder.display();
    // Images are imported and cannot be pulled again: they are never collected.
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: "{ca}"}}}}
authorization: {{mode: Webhook}}
tlsCertFile: "{crt}"
tlsPrivateKeyFile: "{key}"
address: {address}
healthzBindAddress: 127.0.0.1
containerRuntimeEndpoint: "unix://{folder}/containerd.sock"
cgroupDriver: cgroupfs
cgroupRoot: /{name}
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
clusterDomain: cluster.local
clusterDNS: ["{HOST}"]
resolvConf: "{folder}/resolv.conf"
podLogsDir: "{folder}/pods"
volumePluginDir: "{folder}/volume-plugins"
syncFrequency: 10s
nodeStatusUpdateFrequency: 4s
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
maxPods: 200
"#
    )
}

/// kube-proxy's configuration.
pub fn proxy(node: &Node, pki: &Pki) -> String {
    // In a network namespace the machine's connection tracking limits cannot be set: zero leaves them alone.
    format!(
        r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: "{}"}}
hostnameOverride: {}
mode: nftables
clusterCIDR: {PODS}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"#,
        pki.path("proxy.kubeconfig"),
        node.name
    )
}
