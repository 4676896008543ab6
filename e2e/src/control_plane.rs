//! etcd, the API server, the controllers, the scheduler and DNS: on the machine itself, at the bridge's address.
//!
//! Data lives as long as etcd's process does: a cluster that lost it is made anew (see [`crate::leftovers`]).

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::Settings;
use crate::binaries::Binaries;
use crate::command::{SHORT, capture, command, tail, wait_until};
use crate::network::{CLUSTER_IP, HOST, SERVICES};
use crate::pki::Pki;
use crate::processes::{self, Component, write_whole};

/// Ports of our own, so that an etcd of the machine's is not in the way.
const ETCD: &str = "http://127.0.0.1:23790";
const ETCD_PEERS: &str = "http://127.0.0.1:23800";

/// What the audit log holds: every request of people, the operator and tests; of Kubernetes itself, the writes.
const AUDIT_POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: None, nonResourceURLs: ["/*"]}
  - {level: None, userGroups: ["system:nodes"], verbs: [get, list, watch]}
  - {level: None, users: ["system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:apiserver", "dns"], verbs: [get, list, watch]}
  - {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}], namespaces: [kube-node-lease]}
  - {level: Metadata}
"#;

/// Names of the processes that hold the cluster's data: without them nothing can be resumed.
pub const ESSENTIAL: &[&str] = &["etcd"];

/// Names of all its processes.
pub const NAMES: &[&str] =
    &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns"];

/// Starts what is missing, and waits until the API answers.
pub fn ensure(settings: &Settings, binaries: &Binaries, pki: &Pki) -> Result<()> {
    processes::ensure(settings, &etcd(settings, binaries))?;
    processes::ensure(settings, &api_server(settings, binaries, pki)?)?;
    wait_for_api(settings, binaries)?;
    for controller in [controllers(settings, binaries, pki), scheduler(binaries, pki)] {
        processes::ensure(settings, &controller)?;
    }
    processes::ensure(settings, &dns(settings, binaries, pki)?)?;
    Ok(())
}

fn wait_for_api(settings: &Settings, binaries: &Binaries) -> Result<()> {
    let mut answer = command(binaries.path("kubectl"), ["get", "--raw", "/readyz"]);
    answer.envs(settings.environment());
    let ready = wait_until(SHORT, || {
        for name in ["etcd", "kube-apiserver"] {
            if processes::running(settings, name).is_none() {
                let log = settings.log(name);
                bail!(
                    "{name} has ended; its log is {}, which ends:\n{}",
                    log.display(),
                    tail(&log, 8)
                );
            }
        }
        Ok(capture(&mut answer, Duration::from_secs(10))?.success)
    })?;
    if !ready {
        let log = settings.log("kube-apiserver");
        bail!(
            "the API server did not answer; its log is {}, which ends:\n{}",
            log.display(),
            tail(&log, 15)
        );
    }
    Ok(())
}

fn component(binaries: &Binaries, name: &str, arguments: Vec<String>, config: &str) -> Component {
    Component {
        name: name.into(),
        program: binaries.path(name),
        arguments,
        namespace: None,
        config: config.into(),
        path: binaries.folder().into(),
    }
}

fn etcd(settings: &Settings, binaries: &Binaries) -> Component {
    let arguments = vec![
        "--name=sluice".into(),
        format!("--data-dir={}", settings.state.join("etcd").display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEERS}"),
        format!("--initial-advertise-peer-urls={ETCD_PEERS}"),
        format!("--initial-cluster=sluice={ETCD_PEERS}"),
        "--unsafe-no-fsync".into(), // the data is worth nothing after a crash
    ];
    component(binaries, "etcd", arguments, "")
}

fn api_server(settings: &Settings, binaries: &Binaries, pki: &Pki) -> Result<Component> {
    let policy = settings.state.join("audit-policy.yaml");
    write_whole(&policy, AUDIT_POLICY.as_bytes())?;
    fs::create_dir_all(settings.logs())?;
    let flag = |name: &str, file: &str| format!("--{name}={}", pki.path(file));
    let arguments = vec![
        format!("--etcd-servers={ETCD}"),
        format!("--bind-address={HOST}"),
        format!("--advertise-address={HOST}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        flag("tls-cert-file", "apiserver.crt"),
        flag("tls-private-key-file", "apiserver.key"),
        flag("client-ca-file", "ca.crt"),
        flag("service-account-key-file", "service-accounts.pub"),
        flag("service-account-signing-key-file", "service-accounts.key"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        flag("kubelet-client-certificate", "kubelet-client.crt"),
        flag("kubelet-client-key", "kubelet-client.key"),
        flag("kubelet-certificate-authority", "ca.crt"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(), // PodSecurity is on by default
        "--allow-privileged=true".into(),
        flag("requestheader-client-ca-file", "ca.crt"),
        "--requestheader-allowed-names=front-proxy".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        flag("proxy-client-cert-file", "front-proxy.crt"),
        flag("proxy-client-key-file", "front-proxy.key"),
        "--enable-aggregator-routing=true".into(), // webhooks are reached at pod addresses
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", settings.log("audit").display()),
        "--audit-log-maxsize=200".into(),
        "--audit-log-maxbackup=2".into(),
    ];
    debug_assert!(SERVICES.starts_with("10.202.") && CLUSTER_IP.starts_with("10.202."));
    Ok(component(binaries, "kube-apiserver", arguments, AUDIT_POLICY))
}

fn controller_flags(pki: &Pki, user: &str) -> Vec<String> {
    let kubeconfig = pki.path(&format!("{user}.kubeconfig"));
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
    ]
}

fn controllers(settings: &Settings, binaries: &Binaries, pki: &Pki) -> Component {
    let mut arguments = controller_flags(pki, "controller-manager");
    arguments.extend([
        format!("--root-ca-file={}", pki.path("ca.crt")),
        format!("--service-account-private-key-file={}", pki.path("service-accounts.key")),
        "--use-service-account-credentials=true".into(),
        "--node-monitor-grace-period=16s".into(), // a dead node is noticed while a test waits
        format!("--flex-volume-plugin-dir={}", settings.state.join("volume-plugins").display()),
    ]);
    component(binaries, "kube-controller-manager", arguments, "")
}

fn scheduler(binaries: &Binaries, pki: &Pki) -> Component {
    component(binaries, "kube-scheduler", controller_flags(pki, "scheduler"), "")
}

fn dns(settings: &Settings, binaries: &Binaries, pki: &Pki) -> Result<Component> {
    let corefile = format!(
        ". {{
  bind {HOST}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {} sluice-e2e
    ttl 5
  }}
  cache 5
}}
",
        pki.path("dns.kubeconfig")
    );
    let path = settings.state.join("Corefile");
    write_whole(&path, corefile.as_bytes())?;
    let arguments = vec!["-conf".into(), path.display().to_string()];
    Ok(component(binaries, "coredns", arguments, &corefile))
}
