//! The cluster's certificates and kubeconfigs, made once for a state folder.
//!
//! Keys are readable by their owner alone and are good for nothing but this cluster.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::network::{CLUSTER_IP, HOST, NODES, Node};
use crate::processes::write_whole;

/// The users that get a kubeconfig: name, common name, organisation.
const USERS: &[(&str, &str, Option<&str>)] = &[
    ("admin", "admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("proxy", "system:kube-proxy", None),
    ("dns", "dns", Some("system:masters")),
];

/// The folder of the certificates.
#[derive(Debug, Clone)]
pub struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// The certificates of a state folder, made if they are not there.
    pub fn ensure(state: &Path) -> Result<Self> {
        let pki = Self { folder: state.join("pki") };
        if !pki.folder.exists() {
            let making = state.join("pki.making");
            if making.exists() {
                fs::remove_dir_all(&making)?;
            }
            fs::create_dir_all(&making)?;
            fs::set_permissions(&making, Permissions::from_mode(0o700))?;
            Self { folder: making.clone() }.make(&pki.folder)?;
            fs::rename(&making, &pki.folder)?;
        }
        Ok(pki)
    }

    /// The path of a certificate, key or kubeconfig.
    pub fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    fn make(&self, home: &Path) -> Result<()> {
        let ca_key = KeyPair::generate()?;
        let mut ca = params("sluice-e2e", None);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        self.write("ca.crt", &ca.self_signed(&ca_key)?.pem())?;
        let issuer = Issuer::new(ca, ca_key);

        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut server: Vec<String> = names.map(String::from).to_vec();
        server.extend(["127.0.0.1", CLUSTER_IP, HOST].map(String::from));
        self.issue(&issuer, "apiserver", params("kube-apiserver", None), server)?;
        let client = params("apiserver-kubelet", Some("system:masters"));
        self.issue(&issuer, "kubelet-client", client, Vec::new())?;
        self.issue(&issuer, "front-proxy", params("front-proxy", None), Vec::new())?;
        for (user, name, organisation) in USERS {
            self.issue(&issuer, user, params(name, *organisation), Vec::new())?;
            self.kubeconfig(user, home)?;
        }
        for Node { name, address, .. } in NODES {
            let subject = params(&format!("system:node:{name}"), Some("system:nodes"));
            self.issue(&issuer, name, subject, vec![name.into(), address.into()])?;
            self.kubeconfig(name, home)?;
        }
        let accounts = KeyPair::generate()?;
        self.write("service-accounts.key", &accounts.serialize_pem())?;
        self.write("service-accounts.pub", &accounts.public_key_pem())
    }

    fn issue(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        file: &str,
        mut subject: CertificateParams,
        names: Vec<String>,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        subject.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        subject.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        subject.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = subject.signed_by(&key, issuer)?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn kubeconfig(&self, user: &str, home: &Path) -> Result<()> {
        let home = home.display();
        let text = format!(
            r#"apiVersion: v1
kind: Config
clusters: [{{name: sluice, cluster: {{server: "https://{HOST}:6443", certificate-authority: "{home}/ca.crt"}}}}]
users: [{{name: "{user}", user: {{client-certificate: "{home}/{user}.crt", client-key: "{home}/{user}.key"}}}}]
contexts: [{{name: sluice-e2e, context: {{cluster: sluice, user: "{user}"}}}}]
current-context: sluice-e2e
"#
        );
        self.write(&format!("{user}.kubeconfig"), &text)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        write_whole(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
    }
}

fn params(name: &str, organisation: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Dates far apart: the cluster must work whatever the machine's clock says.
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(organisation) = organisation {
        params.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    params.use_authority_key_identifier_extension = true;
    params
}
