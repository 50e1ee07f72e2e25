//! `tmsctl lease update LEASE`.

use serde::Serialize;
use tms_proto::v1::{LabelSet, UpdateRequest};

use super::{Global, lease_of};
use crate::arguments::{ScalingArguments, count, key_value, labels};
use crate::failure::Failure;
use crate::{clock, output, text, view};

/// Change the scaling or the labels of a lease
#[derive(Debug, clap::Args)]
#[command(after_help = "\
--enable-autoscaling makes the lease autoscaled with exactly the flags given, --replicas makes its number of replicas \
fixed; without either, scaling stays as it is. Replicas that run are not restarted.

Examples:
  tmsctl lease update 3f0a --enable-autoscaling --autoscaling-max-replicas 8
  tmsctl lease update 3f0a --replicas 2
  tmsctl lease update 3f0a --label team=search --label stage=production")]
pub struct Arguments {
    /// Id of the lease, or a unique prefix of it
    lease: String,

    /// Fixed number of replicas
    #[arg(long, value_name = "COUNT", value_parser = count, allow_negative_numbers = true)]
    replicas: Option<u32>,

    /// A label of the lease; those given replace all labels that it has
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,

    /// Remove all labels
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,

    /// Change the lease only if this is still its version, as `lease status -o json` shows it
    #[arg(long, value_name = "VERSION")]
    expected_version: Option<i64>,

    #[command(flatten)]
    scaling: ScalingArguments,
}

#[derive(Serialize)]
struct Updated {
    lease: view::Lease,
    warnings: Vec<String>,
}

impl Arguments {
    fn into_request(self) -> Result<UpdateRequest, Failure> {
        let autoscaling = self.scaling.into_autoscaling()?;
        let has_labels = self.no_labels || !self.labels.is_empty();
        if autoscaling.is_none() && self.replicas.is_none() && !has_labels {
            return Err(Failure::usage("there is nothing to change")
                .hint("give --enable-autoscaling, --replicas, --label or --no-labels"));
        }
        let labels = labels(self.labels)?;
        Ok(UpdateRequest {
            lease_id: self.lease,
            autoscaling,
            replicas: self.replicas,
            labels: has_labels.then_some(LabelSet { labels }),
            expected_version: self.expected_version,
        })
    }
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let request = arguments.into_request()?;
    let connection = global.connect().await?;
    let answer = connection.answer("Update", connection.leases().update(request)).await?;
    for warning in &answer.warnings {
        output::warn(warning);
    }
    let updated =
        Updated { lease: view::Lease::from(&lease_of("Update", answer.lease)?), warnings: answer.warnings };
    form.print(
        &updated,
        || {
            let first = format!("Lease {} is updated\n\n", updated.lease.id);
            first + &text::lease_page(&updated.lease, &[], clock::now(), output::width())
        },
        || text::lease_line(&updated.lease),
    )
}
