//! Volumes for what persists: folders below the state folder, which all nodes share, under a default storage class.
//!
//! Each is given out once; a new cluster has them all again.

use anyhow::Result;

use crate::{Cluster, rootfs};

const VOLUMES: usize = 12;

/// Offers the volumes to the cluster.
pub fn ensure(cluster: &Cluster) -> Result<()> {
    let mut yaml = String::from(
        r#"apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: folders
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
"#,
    );
    // Below `nodes`, which goes when the cluster does.
    let folder = cluster.settings().state.join("nodes/volumes");
    for number in 0..VOLUMES {
        let path = folder.join(number.to_string());
        rootfs::open_folder(&path)?;
        yaml.push_str(&format!(
            r#"---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: folder-{number}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: folders
  hostPath: {{path: "{}"}}
"#,
            path.display()
        ));
    }
    cluster.apply(&yaml).map(|_| ())
}
