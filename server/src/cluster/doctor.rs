//! Gathers what cluster and Prometheus tell of the chain by which leases scale, and has it judged. Every question is bounded
//! in time, and all are asked at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;

use super::Cluster;
use super::prometheus::{Element, Prometheus, Trouble};
use crate::domain::doctor::evidence::{Evidence, Expectation, Found, LeaseEvidence, Missing, Series};
use crate::domain::doctor::{Diagnosis, diagnose};
use crate::domain::lease::Lease;
use crate::domain::plan::{Questions, Settings, job};
use crate::domain::scaling::MetricName;

/// Finds out which hop of the chain is broken.
pub struct Doctor {
    /// The cluster.
    pub cluster: Arc<dyn Cluster>,
    /// The Prometheus to ask, where one is named.
    pub prometheus: Option<Prometheus>,
    /// What plans depend on.
    pub settings: Settings,
    /// What is configured.
    pub expectation: Expectation,
    /// Whether the server may look outside the namespace of the leases.
    pub is_wide: bool,
}

impl Doctor {
    /// Looks at the chain, of a lease or without one.
    pub async fn diagnose(&self, lease: Option<&Lease>) -> Diagnosis {
        let looks = tokio::join!(self.cluster.chain(lease, self.is_wide), self.measured(lease));
        let (seen, (prometheus_api, measured)) = looks;
        let Some(seen) = seen else {
            let expectation = Expectation { is_observed: false, ..self.expectation.clone() };
            return diagnose(lease, &self.settings, &expectation, &unobserved());
        };
        let lease_evidence = seen.lease.map(|seen| match measured {
            Some(Measured { up, scrape_errors, rules, series }) => {
                LeaseEvidence { up, scrape_errors, rules, series, ..seen }
            }
            None => seen,
        });
        let evidence = Evidence { prometheus_api, lease: lease_evidence, ..seen };
        diagnose(lease, &self.settings, &self.expectation, &evidence)
    }

    async fn measured(&self, lease: Option<&Lease>) -> (Found<()>, Option<Measured>) {
        let Some(prometheus) = &self.prometheus else {
            let nothing = lease.map(|lease| Measured::missing(lease, &self.settings, &Missing::NoAddress));
            return (Err(Missing::NoAddress), nothing);
        };
        // One that does not answer this answers nothing, and is not asked further.
        if let Err(trouble) = prometheus.query("vector(1)").await {
            let missing = in_words(prometheus, &trouble);
            let nothing = lease.map(|lease| Measured::missing(lease, &self.settings, &missing));
            return (Err(missing), nothing);
        }
        match lease {
            Some(lease) => (Ok(()), Some(measure(prometheus, lease, &self.settings).await)),
            None => (Ok(()), None),
        }
    }
}

/// What Prometheus tells of a lease.
struct Measured {
    up: Found<BTreeMap<String, bool>>,
    scrape_errors: Vec<String>,
    rules: Found<BTreeMap<String, Option<String>>>,
    series: BTreeMap<MetricName, Series>,
}

impl Measured {
    fn missing(lease: &Lease, settings: &Settings, missing: &Missing) -> Self {
        let none = || Series { raw: Err(missing.clone()), recorded: Err(missing.clone()) };
        let metrics = Questions::about(lease, settings).series.into_keys();
        Self {
            up: Err(missing.clone()),
            scrape_errors: Vec::new(),
            rules: Err(missing.clone()),
            series: metrics.map(|metric| (metric, none())).collect(),
        }
    }
}

async fn measure(prometheus: &Prometheus, lease: &Lease, settings: &Settings) -> Measured {
    let questions = Questions::about(lease, settings);
    let pool = format!("podMonitor/{}/0", job(lease));
    let counts = async |query: &str| match prometheus.query(query).await {
        Ok(elements) => Ok(by_pod(elements).map(|(pod, count)| (pod, count as u64)).collect()),
        Err(trouble) => Err(in_words(prometheus, &trouble)),
    };
    let series = join_all(questions.series.iter().map(async |(metric, question)| {
        let (raw, recorded) = tokio::join!(counts(&question.raw), counts(&question.recorded));
        (*metric, Series { raw, recorded })
    }));
    let (up, rules, scrape_errors, series) = tokio::join!(
        prometheus.query(&questions.up),
        prometheus.rules(&questions.group),
        prometheus.scrape_errors(&pool),
        series
    );
    let error = |text: String| Some(text).filter(|text| !text.is_empty());
    Measured {
        up: up
            .map(|elements| by_pod(elements).map(|(pod, up)| (pod, up == 1.0)).collect())
            .map_err(|trouble| in_words(prometheus, &trouble)),
        // What speaks the API of Prometheus may lack these two; they only say more exactly what is wrong.
        scrape_errors: scrape_errors.unwrap_or_default(),
        rules: rules
            .map(|rules| rules.into_iter().map(|rule| (rule.name, error(rule.last_error))).collect())
            .map_err(|trouble| in_words(prometheus, &trouble)),
        series: series.into_iter().collect(),
    }
}

fn by_pod(elements: Vec<Element>) -> impl Iterator<Item = (String, f64)> {
    elements.into_iter().filter_map(|mut element| {
        let value: f64 = element.value.1.parse().ok()?;
        Some((element.labels.remove("pod")?, value))
    })
}

fn in_words(prometheus: &Prometheus, trouble: &Trouble) -> Missing {
    Missing::Away(format!("{}: {trouble}", prometheus.url()))
}

fn unobserved() -> Evidence {
    let nothing = || Missing::Away("the cluster is not observed".to_owned());
    Evidence {
        monitoring_kinds: Err(nothing()),
        keda_kinds: Err(nothing()),
        prometheuses: Err(nothing()),
        namespace_labels: Err(nothing()),
        prometheus_api: Err(nothing()),
        custom_metrics: Err(nothing()),
        resource_metrics: Err(nothing()),
        external_metrics: Err(nothing()),
        lease: None,
    }
}
