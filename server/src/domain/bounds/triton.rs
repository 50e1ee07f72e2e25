//! The Triton of a lease: its image, what it runs on, its environment.

use std::collections::BTreeMap;

use super::findings::{Findings, are, entry, quoted};
use super::image::image_fault;
use super::names::{environment_name_fault, extended_resource_fault};
use super::{Bounds, ResourceBounds, TritonRequest, placement};
use crate::domain::lease::Triton;
use crate::domain::quantity::Quantity;

/// Most environment variables.
const MOST_VARIABLES: usize = 128;
/// Longest value of one, in bytes.
const LONGEST_VALUE: usize = 32 * 1024;
/// Longest environment in bytes; it has to fit into one Kubernetes object with everything else.
const LONGEST_ENVIRONMENT: usize = 256 * 1024;

/// Returns the Triton asked for, with defaults for what is absent. What was refused is in it as it was asked for, as far as
/// that is possible, so that later rules do not complain about a default nobody wanted.
pub(super) fn granted(request: &TritonRequest, bounds: &Bounds, findings: &mut Findings) -> Triton {
    let image = image(&request.image, &bounds.default_image, findings);
    let gpus = gpus(request.gpus, &bounds.resources, findings);
    let gpu_resource = gpu_resource(&request.gpu_resource, &bounds.resources.gpu_resource, findings);
    let cpu = cpu(&request.cpu, &bounds.resources, findings);
    let (memory, shared_memory) = memory(request, &bounds.resources, findings);
    check_environment(&request.environment, findings);
    placement::check_node_selector(&request.node_selector, findings);
    Triton {
        image,
        gpus,
        gpu_resource,
        cpu,
        memory,
        shared_memory,
        environment: request.environment.clone(),
        node_selector: request.node_selector.clone(),
        tolerations: placement::tolerations(&request.tolerations, findings),
        affinity: placement::affinity(&request.affinity_json, findings),
    }
}

fn image(asked: &str, default: &str, findings: &mut Findings) -> String {
    if asked.is_empty() {
        return default.to_owned();
    }
    if let Some(fault) = image_fault(asked) {
        findings.refuse("spec.bespoke.image", format!("{} {fault}", quoted(asked)));
    }
    asked.to_owned()
}

fn gpus(asked: Option<u32>, bounds: &ResourceBounds, findings: &mut Findings) -> u32 {
    let Some(asked) = asked else { return bounds.default.gpus };
    let most = bounds.maximum.gpus;
    if asked > most {
        findings.refuse_by(
            "server.resources.maximum.gpus",
            "spec.bespoke.gpus",
            format!("{asked} GPUs asked for each replica, at most {most} {} allowed", are(most)),
        );
    }
    asked
}

fn gpu_resource(asked: &str, default: &str, findings: &mut Findings) -> String {
    if asked.is_empty() {
        return default.to_owned();
    }
    if let Some(fault) = extended_resource_fault(asked) {
        findings.refuse("spec.bespoke.gpu_resource", format!("{} {fault}", quoted(asked)));
    }
    asked.to_owned()
}

fn cpu(asked: &str, bounds: &ResourceBounds, findings: &mut Findings) -> String {
    const FIELD: &str = "spec.bespoke.cpu";
    if asked.is_empty() {
        return bounds.default.cpu.clone();
    }
    let Some(cpu) = positive(asked, FIELD, findings) else { return bounds.default.cpu.clone() };
    if cpu.nanos() % Quantity::from_milli(1).nanos() != 0 {
        findings.refuse(
            FIELD,
            format!("{} of a CPU asked, but CPU is counted in whole thousandths", quoted(asked)),
        );
    }
    let most = of_bounds(&bounds.maximum.cpu);
    if cpu > most {
        findings.refuse_by(
            "server.resources.maximum.cpu",
            FIELD,
            format!("{cpu} CPU asked, at most {most} is allowed"),
        );
    }
    cpu.to_string()
}

/// Returns main memory and the part of it that /dev/shm may take. A default for the latter gives way to a small memory.
fn memory(request: &TritonRequest, bounds: &ResourceBounds, findings: &mut Findings) -> (String, String) {
    const MEMORY: &str = "spec.bespoke.memory";
    const SHARED: &str = "spec.bespoke.shared_memory";
    let memory = if request.memory.is_empty() {
        Some(of_bounds(&bounds.default.memory))
    } else {
        bytes(&request.memory, MEMORY, findings)
    };
    let most = of_bounds(&bounds.maximum.memory);
    if let Some(memory) = memory.filter(|memory| !request.memory.is_empty() && *memory > most) {
        findings.refuse_by(
            "server.resources.maximum.memory",
            MEMORY,
            format!("{memory} of memory asked, at most {most} is allowed"),
        );
    }
    let default_shared = of_bounds(&bounds.default.shared_memory);
    let shared = if request.shared_memory.is_empty() {
        Some(memory.map_or(default_shared, |memory| memory.min(default_shared)))
    } else {
        bytes(&request.shared_memory, SHARED, findings)
    };
    if let (Some(memory), Some(shared)) = (memory, shared)
        && shared > memory
    {
        findings.refuse(
            SHARED,
            format!("{shared} of shared memory asked, at most {memory} is allowed, because it counts against the memory"),
        );
    }
    (
        memory.map_or_else(|| bounds.default.memory.clone(), |memory| memory.to_string()),
        shared.unwrap_or(default_shared).to_string(),
    )
}

/// Returns a positive number of whole bytes.
fn bytes(text: &str, field: &str, findings: &mut Findings) -> Option<Quantity> {
    let bytes = positive(text, field, findings)?;
    if bytes.nanos() % Quantity::from_milli(1000).nanos() == 0 {
        return Some(bytes);
    }
    let hint = text.strip_suffix('m').map(|number| format!("; did you mean {number}Mi?")).unwrap_or_default();
    findings.refuse(field, format!("{} is not a whole number of bytes{hint}", quoted(text)));
    None
}

fn positive(text: &str, field: &str, findings: &mut Findings) -> Option<Quantity> {
    match Quantity::parse(text) {
        Ok(quantity) if quantity.is_positive() => Some(quantity),
        Ok(_) => {
            findings.refuse(field, format!("{} asked, more than 0 is needed", quoted(text)));
            None
        }
        Err(_) => {
            findings.refuse(
                field,
                format!("{} is not a quantity of Kubernetes, such as 4, 500m or 16Gi", quoted(text)),
            );
            None
        }
    }
}

fn of_bounds(text: &str) -> Quantity {
    Quantity::parse(text).expect("the quantities of the bounds were parsed when the configuration was read")
}

fn check_environment(environment: &BTreeMap<String, String>, findings: &mut Findings) {
    const FIELD: &str = "spec.bespoke.environment";
    let (count, length) =
        (environment.len(), environment.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>());
    if count > MOST_VARIABLES {
        findings.refuse(FIELD, format!("{count} variables asked, at most {MOST_VARIABLES} are allowed"));
    }
    if length > LONGEST_ENVIRONMENT {
        findings.refuse(FIELD, format!("{length} bytes asked, at most {LONGEST_ENVIRONMENT} are allowed"));
    }
    for (name, value) in environment.iter().take(MOST_VARIABLES) {
        let field = entry(FIELD, name);
        if let Some(fault) = environment_name_fault(name) {
            findings.refuse(&field, format!("{} {fault}", quoted(name)));
        }
        if name.starts_with("TMS_") {
            findings.refuse(
                &field,
                format!("{} is refused: names that begin with TMS_ belong to TMS", quoted(name)),
            );
        }
        // On a GPU node this variable opens GPUs that Kubernetes did not assign.
        if name == "NVIDIA_VISIBLE_DEVICES" {
            findings.refuse(
                &field,
                "NVIDIA_VISIBLE_DEVICES is refused: a lease sees the GPUs that it asked for, ask for gpus",
            );
        }
        if value.len() > LONGEST_VALUE {
            findings.refuse(
                &field,
                format!("a value of {} bytes asked, at most {LONGEST_VALUE} are allowed", value.len()),
            );
        }
        if value.contains('\0') {
            findings.refuse(&field, "the value contains a NUL character");
        }
    }
}
