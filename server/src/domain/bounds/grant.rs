//! What a request for a lease, or for a change of one, becomes within the bounds.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::findings::{Findings, are, entry, quoted};
use super::names::is_own;
use super::placement::check_label;
use super::{
    Accepted, AutomaticRenewalRequest, AutoscalingRequest, Bounds, RenewalRequest, Request, UpdateRequest,
    Violation, autoscaling, models, triton,
};
use crate::domain::lease::{AutomaticRenewal, Lease, LifetimeBounds, Model, Spec, Triton};
use crate::domain::life::{Renewal, Update};
use crate::domain::scaling::{Autoscaling, Scaling};

/// Most labels of a lease.
const MOST_LABELS: usize = 32;
/// Words by which an image or the uri of a model shows a back end that queues requests by itself.
const OWN_QUEUES: [&str; 4] = ["vllm", "trtllm", "tensorrt_llm", "tensorrtllm"];

/// Returns what is granted of a request for a lease, or every fault of it, with field paths from the root of the messages
/// `AcquireRequest` and `PlanRequest`.
pub fn grant(request: &Request, bounds: &Bounds) -> Result<Accepted<Spec>, Vec<Violation>> {
    let mut findings = Findings::default();
    let models = models::granted(&request.models, bounds, &mut findings);
    let triton = triton::granted(&request.triton, bounds, &mut findings);
    let wishes = Wishes { autoscaling: request.autoscaling.as_ref(), replicas: request.replicas };
    let scaling = scaling("spec.", &wishes, &models, &triton, bounds, &mut findings)
        .unwrap_or(Scaling::Fixed { replicas: 1 });
    models::check_sharing(&models, &scaling, &bounds.repositories, &mut findings);
    let lifetime = lifetime(request.lifetime, &bounds.lifetime, &mut findings);
    check_labels("spec.labels", &request.labels, &mut findings);
    let automatic_renewal = request
        .automatic_renewal
        .and_then(|wish| automatic_renewal("spec.automatic_renewal", wish, bounds, &mut findings));
    findings.conclude(Spec {
        models,
        triton,
        scaling,
        lifetime,
        labels: request.labels.clone(),
        automatic_renewal,
    })
}

/// Returns the autoscaling and the Triton that are granted of a request that may name no models, for a look at how it would
/// scale; every fault of it otherwise, with field paths from the root of the message `SimulateRequest`.
pub fn grant_scaling(
    request: &Request,
    bounds: &Bounds,
) -> Result<Accepted<(Autoscaling, Triton)>, Vec<Violation>> {
    let mut findings = Findings::default();
    let models = match request.models.as_slice() {
        [] => Vec::new(),
        models => models::granted(models, bounds, &mut findings),
    };
    let triton = triton::granted(&request.triton, bounds, &mut findings);
    let wishes = Wishes { autoscaling: request.autoscaling.as_ref(), replicas: request.replicas };
    let scaling = scaling("spec.", &wishes, &models, &triton, bounds, &mut findings);
    let autoscaling = match scaling {
        Some(Scaling::Auto(autoscaling)) => Some(autoscaling),
        Some(Scaling::Fixed { .. }) | None => {
            findings.refuse("spec.autoscaling", "no autoscaling asked, and nothing else can be simulated");
            None
        }
    };
    let Accepted { granted, warnings } = findings.conclude(autoscaling)?;
    let autoscaling = granted.expect("its absence was refused");
    Ok(Accepted { granted: (autoscaling, triton), warnings })
}

/// Returns the change of a lease that is granted, or every fault of the request for it, with field paths from the root of
/// the message `UpdateRequest`. What is absent stays as it is.
pub fn grant_update(
    lease: &Lease,
    request: &UpdateRequest,
    bounds: &Bounds,
) -> Result<Accepted<Update>, Vec<Violation>> {
    let mut findings = Findings::default();
    let wishes = Wishes { autoscaling: request.autoscaling.as_ref(), replicas: request.replicas };
    let scaling = scaling("", &wishes, &lease.spec.models, &lease.spec.triton, bounds, &mut findings);
    if let Some(scaling) = &scaling {
        models::check_replicas(&lease.spec.models, scaling, &bounds.repositories, &mut findings);
    }
    if let Some(labels) = &request.labels {
        check_labels("labels.labels", labels, &mut findings);
    }
    let renewal = request.renewal.and_then(|wish| match wish {
        RenewalRequest::On(wish) => {
            automatic_renewal("renewal.automatic_renewal", wish, bounds, &mut findings).map(Renewal::On)
        }
        RenewalRequest::Off => Some(Renewal::Off),
    });
    findings.conclude(Update { scaling, labels: request.labels.clone(), renewal })
}

/// The two ways to ask for replicas.
struct Wishes<'a> {
    autoscaling: Option<&'a AutoscalingRequest>,
    replicas: Option<u32>,
}

fn scaling(
    prefix: &str,
    wishes: &Wishes<'_>,
    models: &[Model],
    triton: &Triton,
    bounds: &Bounds,
    findings: &mut Findings,
) -> Option<Scaling> {
    let replicas_field = format!("{prefix}replicas");
    if wishes.autoscaling.is_some() && wishes.replicas.is_some() {
        findings.refuse(
            &replicas_field,
            "a fixed number of replicas and autoscaling asked, which exclude each other: leave one out",
        );
    }
    let fixed = wishes.replicas.map(|replicas| {
        check_replicas(&replicas_field, replicas, bounds.autoscaling.maximum, findings);
        Scaling::Fixed { replicas }
    });
    let auto = wishes.autoscaling.map(|request| {
        let subject = autoscaling::Subject { triton, queues_itself: queues_itself(models, triton) };
        Scaling::Auto(autoscaling::granted(
            &format!("{prefix}autoscaling"),
            request,
            &subject,
            &bounds.autoscaling,
            findings,
        ))
    });
    auto.or(fixed)
}

fn queues_itself(models: &[Model], triton: &Triton) -> bool {
    let mut places = models.iter().map(|model| &model.uri).chain([&triton.image]);
    places.any(|place| {
        let place = place.to_ascii_lowercase();
        OWN_QUEUES.iter().any(|word| place.contains(word))
    })
}

fn check_replicas(field: &str, asked: u32, most: u32, findings: &mut Findings) {
    const KEY: &str = "server.autoscaling.replicas.limits.maximum";
    if asked > most {
        findings.refuse_by(
            KEY,
            field,
            format!("{asked} replicas asked, at most {most} {} allowed", are(most)),
        );
    }
    if asked == 0 {
        findings.refuse(field, format!("0 replicas asked, 1 to {most} are allowed"));
    }
}

fn lifetime(
    asked: Option<SignedDuration>,
    bounds: &LifetimeBounds,
    findings: &mut Findings,
) -> SignedDuration {
    let lifetime = asked.unwrap_or(bounds.default);
    let LifetimeBounds { minimum, maximum, .. } = bounds;
    let key = match lifetime {
        short if short < *minimum => "server.leases.minimumLifetime",
        long if long > *maximum => "server.leases.maximumLifetime",
        _ => return lifetime,
    };
    let message = format!("a lifetime of {lifetime:#} asked, {minimum:#} to {maximum:#} is allowed");
    findings.refuse_by(key, "spec.lifetime", message);
    lifetime
}

fn automatic_renewal(
    field: &str,
    asked: AutomaticRenewalRequest,
    bounds: &Bounds,
    findings: &mut Findings,
) -> Option<AutomaticRenewal> {
    const LOOKS_KEY: &str = "server.leases.automaticRenewal.lookInterval";
    let Some(renewal) = bounds.automatic_renewal else {
        let why = "renewal by use asked, but what becomes of manifests is not observed, so that their use is unknown: renew \
                   the lease by hand";
        findings.refuse_until("server.cluster.kind", field, why);
        return None;
    };
    let idle_window = asked.idle_window.unwrap_or(renewal.default_idle_window.min(bounds.lifetime.maximum));
    let (shortest, longest) = (renewal.minimum_idle_window(), bounds.lifetime.maximum);
    let key = match idle_window {
        short if short < shortest => LOOKS_KEY,
        long if long > longest => "server.leases.maximumLifetime",
        _ => return Some(AutomaticRenewal { idle_window }),
    };
    let message = format!("an idle window of {idle_window:#} asked, {shortest:#} to {longest:#} is allowed");
    findings.refuse_by(key, format!("{field}.idle_window"), message);
    None
}

fn check_labels(field: &str, labels: &BTreeMap<String, String>, findings: &mut Findings) {
    if labels.len() > MOST_LABELS {
        findings.refuse(field, format!("{} labels asked, at most {MOST_LABELS} are allowed", labels.len()));
    }
    for (key, value) in labels.iter().take(MOST_LABELS) {
        let field = entry(field, key);
        check_label(&field, key, value, findings);
        if is_own(key) {
            findings.refuse(
                &field,
                format!("{} is refused: labels under tms.internal belong to TMS", quoted(key)),
            );
        }
    }
}
