//! `tmsctl lease update LEASE`.

use serde::Serialize;
use tms_proto::v1::{LabelSet, RenewalChange, UpdateRequest};

use super::{Global, lease_of};
use crate::arguments::{RenewalArguments, ScalingArguments, count, key_value, labels};
use crate::failure::Failure;
use crate::{clock, output, text, view};

/// Change the scaling, the labels or the automatic renewal of a lease
#[derive(Debug, clap::Args)]
#[command(after_help = "\
--enable-autoscaling makes the lease autoscaled with exactly the flags given, --replicas makes its number of replicas \
fixed; without either, scaling stays as it is. Replicas that run are not restarted, and the end of the lease stays where it is \
until use or `tmsctl lease renew` moves it.

Examples:
  tmsctl lease update 3f0a --enable-autoscaling --autoscaling-max-replicas 8
  tmsctl lease update 3f0a --replicas 2
  tmsctl lease update 3f0a --label team=search --label stage=production
  tmsctl lease update 3f0a --auto-renew --idle-window 30m")]
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

    /// Let use renew the lease no more
    #[arg(long, conflicts_with_all = ["auto_renew", "idle_window"])]
    no_auto_renew: bool,

    #[command(flatten)]
    renewal: RenewalArguments,

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
        let automatic_renewal = self.renewal.into_automatic_renewal()?;
        let has_renewal = self.no_auto_renew || automatic_renewal.is_some();
        if autoscaling.is_none() && self.replicas.is_none() && !has_labels && !has_renewal {
            return Err(Failure::usage("there is nothing to change").hint(
                "give --enable-autoscaling, --replicas, --label, --no-labels, --auto-renew or --no-auto-renew",
            ));
        }
        let labels = labels(self.labels)?;
        Ok(UpdateRequest {
            lease_id: self.lease,
            autoscaling,
            replicas: self.replicas,
            labels: has_labels.then_some(LabelSet { labels }),
            expected_version: self.expected_version,
            renewal: has_renewal.then_some(RenewalChange { automatic_renewal }),
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn request(line: &str) -> Result<UpdateRequest, Failure> {
        let line = format!("update 3f0a {line}");
        Line::try_parse_from(line.split_whitespace()).expect("clap takes the line").arguments.into_request()
    }

    #[test]
    fn automatic_renewal_is_turned_on_off_or_left_as_it_is() {
        let window = |line: &str| {
            let renewal = request(line).unwrap().renewal?;
            Some(renewal.automatic_renewal.map(|on| on.idle_window.map(|window| window.seconds)))
        };
        assert_eq!(window("--replicas 2"), None);
        assert_eq!(window("--no-auto-renew"), Some(None));
        assert_eq!(window("--auto-renew"), Some(Some(None)));
        assert_eq!(window("--auto-renew --idle-window 10m"), Some(Some(Some(600))));
        assert!(request("--idle-window 10m").unwrap_err().report().contains("add --auto-renew"));
        assert!(request("").unwrap_err().report().contains("--no-auto-renew"));
        for line in
            ["update 3f0a --auto-renew --no-auto-renew", "update 3f0a --no-auto-renew --idle-window 10m"]
        {
            assert!(Line::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
