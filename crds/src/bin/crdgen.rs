//! Prints the CustomResourceDefinition.
use kube::CustomResourceExt;
fn main() {
    println!("{}", serde_saphyr::to_string(&sluice_crds::ChannelCluster::crd()).unwrap_or_default());
}
