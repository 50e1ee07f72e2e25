//! The flags of autoscaling, which creating, planning and updating a lease share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use tms_proto::v1::{Autoscaling, Behavior, Metric, ScalingPolicy, ScalingRules, Trigger};

use super::{metric, trigger, values};
use crate::failure::Failure;

/// How replicas follow the load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Autoscaling options")]
pub struct ScalingArguments {
    /// Let Kubernetes scale the replicas of the lease
    #[arg(long, conflicts_with = "replicas")]
    enable_autoscaling: bool,

    #[command(flatten)]
    wishes: WishArguments,
}

/// What is wished of autoscaling.
#[derive(Debug, Args)]
#[command(next_help_heading = "Autoscaling options")]
pub struct WishArguments {
    /// Most replicas [default: the administrator's]
    #[arg(long, value_name = "COUNT", value_parser = values::count, allow_negative_numbers = true)]
    autoscaling_max_replicas: Option<u32>,

    /// Fewest replicas [default: the administrator's]
    #[arg(long, value_name = "COUNT", value_parser = values::count, allow_negative_numbers = true)]
    autoscaling_min_replicas: Option<u32>,

    /// Scale by CPU use, above this percentage of what the pods request
    #[arg(long, value_name = "PERCENT|off", value_parser = metric::utilization,
          num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    autoscaling_cpu_utilization: Option<Metric>,

    /// Scale by use of main memory, above this percentage of what the pods request
    #[arg(long, value_name = "PERCENT|off", value_parser = metric::utilization,
          num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    autoscaling_memory_utilization: Option<Metric>,

    /// Scale by use of the GPUs, above this percentage
    #[arg(long, value_name = "PERCENT|off", value_parser = metric::utilization,
          num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    autoscaling_gpu_utilization: Option<Metric>,

    /// Scale by use of GPU memory, above this percentage
    #[arg(long, value_name = "PERCENT|off", value_parser = metric::utilization,
          num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    autoscaling_gpu_memory_utilization: Option<Metric>,

    /// Scale by the mean time that requests wait in Triton's queue: microseconds, or a time such as 200ms
    #[arg(long, value_name = "TIME|off", value_parser = metric::queue_time,
          num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    autoscaling_queue_time: Option<Metric>,

    /// Pace of scaling: a YAML or JSON file in the form of `behavior` of a HorizontalPodAutoscaler (autoscaling/v2)
    #[arg(long, value_name = "FILE")]
    autoscaling_behavior_file: Option<PathBuf>,

    /// Scale by a signal from outside the pods too, of a kind that the administrator allows; repeatable. A lease with one may
    /// have a minimum of 0 replicas
    #[arg(long, value_name = "kind=KIND,KEY=VALUE", value_parser = trigger::parse)]
    trigger: Vec<Trigger>,
}

impl ScalingArguments {
    /// Returns the wishes, or nothing where autoscaling is not asked for.
    pub fn into_autoscaling(self) -> Result<Option<Autoscaling>, Failure> {
        if !self.enable_autoscaling {
            return match self.wishes.first_detail() {
                Some(flag) => {
                    Err(Failure::usage(format!("{flag} means nothing without --enable-autoscaling"))
                        .hint("add --enable-autoscaling"))
                }
                None => Ok(None),
            };
        }
        self.wishes.into_autoscaling().map(Some)
    }
}

impl WishArguments {
    /// Returns the wishes.
    pub fn into_autoscaling(self) -> Result<Autoscaling, Failure> {
        let behavior = self.autoscaling_behavior_file.as_deref().map(read_behavior).transpose()?;
        let metrics: BTreeMap<String, Metric> = [
            ("cpuUtilization", self.autoscaling_cpu_utilization),
            ("memoryUtilization", self.autoscaling_memory_utilization),
            ("gpuUtilization", self.autoscaling_gpu_utilization),
            ("gpuMemoryUtilization", self.autoscaling_gpu_memory_utilization),
            ("queueTime", self.autoscaling_queue_time),
        ]
        .into_iter()
        .filter_map(|(name, metric)| Some((name.to_owned(), metric?)))
        .collect();
        Ok(Autoscaling {
            min_replicas: self.autoscaling_min_replicas,
            max_replicas: self.autoscaling_max_replicas,
            metrics,
            behavior,
            triggers: self.trigger,
        })
    }

    /// Returns the first flag that is given.
    pub fn first_detail(&self) -> Option<&'static str> {
        [
            ("--autoscaling-max-replicas", self.autoscaling_max_replicas.is_some()),
            ("--autoscaling-min-replicas", self.autoscaling_min_replicas.is_some()),
            ("--autoscaling-cpu-utilization", self.autoscaling_cpu_utilization.is_some()),
            ("--autoscaling-memory-utilization", self.autoscaling_memory_utilization.is_some()),
            ("--autoscaling-gpu-utilization", self.autoscaling_gpu_utilization.is_some()),
            ("--autoscaling-gpu-memory-utilization", self.autoscaling_gpu_memory_utilization.is_some()),
            ("--autoscaling-queue-time", self.autoscaling_queue_time.is_some()),
            ("--autoscaling-behavior-file", self.autoscaling_behavior_file.is_some()),
            ("--trigger", !self.trigger.is_empty()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BehaviorFile {
    scale_up: Option<RulesFile>,
    scale_down: Option<RulesFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RulesFile {
    stabilization_window_seconds: Option<u32>,
    select_policy: Option<String>,
    #[serde(default)]
    policies: Vec<PolicyFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyFile {
    r#type: String,
    value: u32,
    period_seconds: u32,
}

fn read_behavior(path: &Path) -> Result<Behavior, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
    let file: BehaviorFile = serde_saphyr::from_str(&text)
        .map_err(|error| Failure::usage(format!("{} makes no sense: {error}", path.display())))?;
    Ok(Behavior { scale_up: file.scale_up.map(rules), scale_down: file.scale_down.map(rules) })
}

fn rules(file: RulesFile) -> ScalingRules {
    let policy = |file: PolicyFile| ScalingPolicy {
        r#type: file.r#type,
        value: file.value,
        period_seconds: file.period_seconds,
    };
    ScalingRules {
        stabilization_window_seconds: file.stabilization_window_seconds,
        select_policy: file.select_policy.unwrap_or_default(),
        policies: file.policies.into_iter().map(policy).collect(),
    }
}
