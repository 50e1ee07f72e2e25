//! `tmsctl lease plan`.

use serde::Serialize;
use tms_proto::v1::{LeaseSpec, PlanRequest};

use super::{Global, lease_of};
use crate::arguments::SpecArguments;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::view;

/// Show what a lease would mean in Kubernetes, without creating it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The flags are those of `tmsctl lease create`. The objects are printed as YAML documents in the order in which they are \
applied; with -o json or yaml they are in `manifests`, and `lease` has every default filled in.

Examples:
  tmsctl lease plan -m name=resnet50,uri=pvc://models/resnet50 --enable-autoscaling \\
      --autoscaling-max-replicas 4
  tmsctl lease plan -m name=resnet50,uri=pvc://models/resnet50 | kubectl apply --dry-run=server -f -")]
pub struct Arguments {
    #[command(flatten)]
    spec: SpecArguments,
}

#[derive(Serialize)]
struct Plan {
    lease: view::Lease,
    manifests: Vec<String>,
    warnings: Vec<String>,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let spec = arguments.spec.into_spec()?;
    show(&global.connect().await?, form, spec).await
}

/// Asks what a lease would mean, and prints it.
pub async fn show(connection: &Connection, form: Form, spec: LeaseSpec) -> Result<(), Failure> {
    let request = PlanRequest { spec: Some(spec) };
    let answer = connection.answer("Plan", connection.leases().plan(request)).await?;
    for warning in &answer.warnings {
        output::warn(warning);
    }
    let lease = view::Lease::from(&lease_of("Plan", answer.lease)?);
    let plan = Plan { lease, manifests: answer.manifests, warnings: answer.warnings };
    form.print(&plan, || documents(&plan.manifests), || documents(&plan.manifests))
}

/// Returns the manifests as one stream of YAML documents.
fn documents(manifests: &[String]) -> String {
    let bodies: Vec<&str> =
        manifests.iter().map(|manifest| manifest.trim_start_matches("---\n").trim_end()).collect();
    if bodies.is_empty() { String::new() } else { bodies.join("\n---\n") + "\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_one_stream_of_documents_however_they_come() {
        let manifests = ["---\nkind: Deployment\n".to_owned(), "kind: Service".to_owned()];
        assert_eq!(documents(&manifests), "kind: Deployment\n---\nkind: Service\n");
        assert_eq!(documents(&[]), "");
    }
}
