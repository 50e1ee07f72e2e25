//! What a release of TMS has in the cluster besides its namespace.

use tms_tests::cluster::Cluster;

/// Takes it away, now and at the end: while an APIService has no server, no namespace can be deleted.
pub struct Registration(pub &'static Cluster, &'static str);

impl Registration {
    /// Of the release in this namespace.
    pub fn none(namespace: &'static str) -> Option<Self> {
        let registration = Self(crate::cluster()?, namespace);
        registration.remove();
        Some(registration)
    }

    fn remove(&self) {
        // The server would make it again.
        let server = ["delete", "deployment/tms", "--namespace", self.1, "--ignore-not-found"];
        let _ = self.0.kubectl(&server);
        let name = format!("{}:tms-custom-metrics", self.1);
        let delete = |args: &[&str]| {
            self.0.kubectl(&[&["delete", "--ignore-not-found"], args].concat()).expect("it goes")
        };
        delete(&["apiservice", "v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"]);
        delete(&["clusterrole,clusterrolebinding", &name]);
        delete(&["rolebinding", "--namespace=kube-system", &name]);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.remove();
    }
}
