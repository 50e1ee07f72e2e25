//! Leases as people read them (tables, and the page of one lease) and as shell scripts do (fields separated by tabs).

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use jiff::Timestamp;

use crate::view::{Bespoke, Event, Lease, ModelStatus, Replicas};
use crate::words;

const NAME: Style = Style::new().bold();
const SHORT_ID: usize = 12;

/// Columns that may be broken over lines where the terminal is narrow; ids and states never are.
const FLOWING: [&str; 5] = ["MESSAGE", "MODELS", "RANGE", "URI", "URL"];

/// Returns the digits of a lease id that tables show.
pub fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// Returns a lease's state in its colour.
pub fn state(state: &str) -> String {
    let colour = match state {
        "READY" | "WRITTEN" => AnsiColor::Green,
        "PENDING" | "PROVISIONING" | "LOADING" => AnsiColor::Cyan,
        "DEGRADED" | "INVALID" | "FAILED" => AnsiColor::Red,
        "ASLEEP" | "EXPIRED" => AnsiColor::Yellow,
        _ => return state.to_owned(),
    };
    let style = colour.on_default();
    format!("{style}{state}{style:#}")
}

/// Returns leases as a table that fits `width` columns.
pub fn lease_table(leases: &[Lease], now: Timestamp, width: Option<u16>) -> String {
    let several_owners = leases.iter().any(|lease| lease.owner != leases[0].owner);
    let any_message = leases.iter().any(|lease| !lease.message.is_empty());
    let mut header = vec!["LEASE", "STATE", "REPLICAS", "ENDS", "MODELS"];
    header.extend(several_owners.then_some("OWNER"));
    header.extend(any_message.then_some("MESSAGE"));
    let rows = leases.iter().map(|lease| {
        let mut row = vec![
            short(&lease.id).to_owned(),
            lease.state.to_owned(),
            replicas(lease),
            end(lease, now),
            model_names(lease, ", "),
        ];
        row.extend(several_owners.then(|| lease.owner.clone()));
        row.extend(any_message.then(|| lease.message.clone()));
        row
    });
    let text = table(&header, rows, width);
    // The state is the first word after an id of digits, so the first place that reads like it is the right one.
    let lines = text.lines().map(|line| {
        let known = leases.iter().map(|lease| lease.state).find(|state| line.contains(&format!("  {state}")));
        match known {
            Some(word) => line.replacen(word, &state(word), 1),
            None => line.to_owned(),
        }
    });
    lines.map(|line| line + "\n").collect()
}

/// Returns a table without borders that fits `width` columns.
pub fn table<R: IntoIterator<Item = String>>(
    header: &[&str],
    rows: impl IntoIterator<Item = R>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if !FLOWING.contains(name) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Returns the fields of a lease for shell scripts: id, state, ready, desired, minimum and maximum replicas, end,
/// owner, models.
pub fn lease_line(lease: &Lease) -> String {
    let Replicas { ready, desired, minimum, maximum, .. } = lease.replicas;
    let fields = [
        lease.id.clone(),
        lease.state.to_owned(),
        ready.to_string(),
        desired.to_string(),
        minimum.to_string(),
        maximum.to_string(),
        lease.expires_at.map(|at| at.to_string()).unwrap_or_default(),
        lease.owner.clone(),
        model_names(lease, ","),
    ];
    line(&fields)
}

/// Returns fields on one line, separated by tabs.
pub fn line<S: AsRef<str>>(fields: &[S]) -> String {
    let clean: Vec<String> =
        fields.iter().map(|field| field.as_ref().replace(['\t', '\n', '\r'], " ")).collect();
    clean.join("\t") + "\n"
}

/// Returns the page of one lease.
pub fn lease_page(lease: &Lease, events: &[Event], now: Timestamp, width: Option<u16>) -> String {
    let mut page = facts(&lease_facts(lease, now));
    page += &section("Models", &model_table(lease, width));
    page += &section("Events", &event_table(events, now, width));
    page
}

/// Returns named facts, one on a line; those without words are left out.
pub fn facts(facts: &[(&str, String)]) -> String {
    let facts = facts.iter().filter(|(_, words)| !words.is_empty());
    facts.map(|(name, words)| format!("{NAME}{name:<11}{NAME:#} {words}\n")).collect()
}

/// Returns a table under its name, or nothing where the table is empty.
pub fn section(name: &str, table: &str) -> String {
    match table {
        "" => String::new(),
        _ => {
            let indented: String = table.lines().map(|line| format!("  {line}\n")).collect();
            format!("\n{NAME}{name}{NAME:#}\n{indented}")
        }
    }
}

fn lease_facts<'a>(lease: &Lease, now: Timestamp) -> Vec<(&'a str, String)> {
    let told = |at: Option<Timestamp>| at.map(|at| words::moment(at, now)).unwrap_or_default();
    let triton = lease.spec.bespoke.as_ref();
    let labels: Vec<String> = lease.spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        ("Lease", lease.id.clone()),
        ("State", state(lease.state)),
        ("Message", lease.message.clone()),
        ("Owner", lease.owner.clone()),
        ("Namespace", lease.namespace.clone()),
        ("Endpoint", endpoint(lease).map(|it| it + ", inside the cluster").unwrap_or_default()),
        ("Try", call_inside(lease).unwrap_or_default()),
        ("Elsewhere", if serves(lease) { forward(lease) } else { String::new() }),
        ("Replicas", replicas_in_words(lease)),
        ("Scaling", scaling(lease)),
        ("Image", triton.map(|triton| triton.image.clone()).unwrap_or_default()),
        ("Resources", triton.map(resources).unwrap_or_default()),
        ("Labels", labels.join(", ")),
        ("Created", told(lease.created_at)),
        (if lease.ended_at.is_some() { "Was to end" } else { "Ends" }, told(lease.expires_at)),
        ("Ended", told(lease.ended_at)),
        ("Renewal", renewal(lease, now)),
        ("Closed", told(lease.closed_at)),
    ]
}

/// Returns how use renews a lease, and when it last did.
fn renewal(lease: &Lease, now: Timestamp) -> String {
    let Some(renewal) = &lease.spec.automatic_renewal else { return String::new() };
    let window = renewal
        .idle_window
        .map(|window| format!(", for {} each time", words::duration(window.0)))
        .unwrap_or_default();
    let last =
        lease.last_used_at.map(|at| format!("; last {}", words::relative(at, now))).unwrap_or_default();
    format!("by use{window}{last}")
}

/// Returns how much of a model has been fetched and why it is where it is, as far as there is something to say.
pub fn model_words(model: &ModelStatus) -> String {
    let bytes = match (model.downloaded_bytes, model.total_bytes) {
        (Some(downloaded), Some(total)) if total > 0 => {
            let percent = downloaded.min(total).saturating_mul(100) / total;
            format!("{} of {} ({percent} %)", words::bytes(downloaded), words::bytes(total))
        }
        (Some(downloaded), _) => words::bytes(downloaded),
        (None, _) => String::new(),
    };
    match (bytes.as_str(), model.message.as_str()) {
        ("", message) => message.to_owned(),
        (bytes, "") => bytes.to_owned(),
        (bytes, message) => format!("{bytes}: {message}"),
    }
}

/// Returns where clients reach the Triton of a lease.
pub fn endpoint(lease: &Lease) -> Option<String> {
    let endpoint = lease.endpoint.as_ref()?;
    Some(format!("{} (HTTP {}, gRPC {})", endpoint.host, endpoint.http_port, endpoint.grpc_port))
}

/// Returns a line for a shell inside the cluster that asks the first model of a lease whether it serves, where it may.
pub fn call_inside(lease: &Lease) -> Option<String> {
    let endpoint = lease.endpoint.as_ref().filter(|_| serves(lease))?;
    call(lease, &format!("{}:{}", endpoint.host, endpoint.http_port))
}

/// Returns a line for a shell that asks the first model of a lease whether it serves, by way of `authority`.
pub fn call(lease: &Lease, authority: &str) -> Option<String> {
    let model = lease.spec.models.first()?;
    // Without -i nothing would be seen: the answer is a status alone.
    Some(format!("curl -i http://{authority}/v2/models/{}/ready", model.name))
}

/// Returns the command that makes a lease reachable from outside its cluster.
pub fn forward(lease: &Lease) -> String {
    format!("tmsctl lease port-forward {}", short(&lease.id))
}

fn serves(lease: &Lease) -> bool {
    matches!(lease.state, "READY" | "DEGRADED")
}

/// Returns how a lease scales: its metrics with their thresholds.
fn scaling(lease: &Lease) -> String {
    let Some(_) = lease.spec.autoscaling else { return String::new() };
    let metrics = &lease.active_metrics;
    if metrics.is_empty() {
        return "no metric is on".to_owned();
    }
    let told = metrics.iter().map(|(name, value)| format!("{name} above {}", words::threshold(name, *value)));
    told.collect::<Vec<_>>().join(", ")
}

fn resources(triton: &Bespoke) -> String {
    let gpus = match (triton.gpus, triton.gpu_resource.as_str()) {
        (None, _) => None,
        (Some(0), _) => Some("no GPU".to_owned()),
        (Some(count), "") => Some(words::count(count as usize, "GPU")),
        (Some(count), resource) => Some(format!("{} ({resource})", words::count(count as usize, "GPU"))),
    };
    let amount = |amount: &str, of: &str| (!amount.is_empty()).then(|| format!("{amount} {of}"));
    let parts = [
        gpus,
        amount(&triton.cpu, "CPU"),
        amount(&triton.memory, "memory"),
        amount(&triton.shared_memory, "/dev/shm"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn model_table(lease: &Lease, width: Option<u16>) -> String {
    let rows: Vec<Vec<String>> = lease
        .spec
        .models
        .iter()
        .map(|model| {
            let status = lease.models.iter().find(|status| status.name == model.name);
            vec![
                model.name.clone(),
                status.map(|status| status.state.to_owned()).unwrap_or_default(),
                model.uri.clone(),
                status.map(model_words).unwrap_or_default(),
            ]
        })
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        table(&["NAME", "STATE", "URI", "MESSAGE"], rows, inner(width))
    }
}

fn event_table(events: &[Event], now: Timestamp, width: Option<u16>) -> String {
    // Replicas or bytes have changed: it stands above how they are.
    let is_mute = |event: &&Event| event.reason == "Reported" && event.message.is_empty();
    let rows: Vec<Vec<String>> = events
        .iter()
        .filter(|event| !is_mute(event))
        .map(|event| {
            vec![
                event.at.map(|at| words::relative(at, now)).unwrap_or_default(),
                event.reason.clone(),
                event.state.to_owned(),
                event.actor.clone(),
                event.message.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        table(&["WHEN", "WHAT", "STATE", "BY", "MESSAGE"], rows, inner(width))
    }
}

/// Returns what remains of the width for a table in a section, which is indented.
pub fn inner(width: Option<u16>) -> Option<u16> {
    width.map(|width| width.saturating_sub(2))
}

fn model_names(lease: &Lease, separator: &str) -> String {
    let names: Vec<&str> = lease.spec.models.iter().map(|model| model.name.as_str()).collect();
    names.join(separator)
}

/// A lease that is written is not observed: nobody knows how many of its replicas are ready.
fn is_observed(lease: &Lease) -> bool {
    lease.state != "WRITTEN"
}

fn replicas(lease: &Lease) -> String {
    let Replicas { ready, desired, minimum, maximum, .. } = lease.replicas;
    match (is_observed(lease), minimum == maximum) {
        (true, true) => format!("{ready}/{desired}"),
        (true, false) => format!("{ready}/{desired} ({minimum}-{maximum})"),
        (false, true) => format!("?/{minimum}"),
        (false, false) => format!("? ({minimum}-{maximum})"),
    }
}

fn replicas_in_words(lease: &Lease) -> String {
    let Replicas { ready, desired, minimum, maximum, .. } = lease.replicas;
    match (is_observed(lease), minimum == maximum) {
        (true, true) => format!("{ready} of {desired} ready"),
        (true, false) => format!("{ready} of {desired} ready, scaled from {minimum} to {maximum}"),
        (false, true) => format!("{minimum}, not observed"),
        (false, false) => format!("scaled from {minimum} to {maximum}, not observed"),
    }
}

fn end(lease: &Lease, now: Timestamp) -> String {
    lease.ended_at.or(lease.expires_at).map(|at| words::relative(at, now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::testing;

    fn now() -> Timestamp {
        Timestamp::from_second(testing::NOON + 4_680).unwrap()
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn three() -> Vec<Lease> {
        let mut fixed = testing::lease_view();
        fixed.id = "b1d20c2d4b5e46f7a8b9c0d1e2f30415".into();
        fixed.state = "PROVISIONING";
        fixed.message = "no node has a free nvidia.com/gpu".into();
        fixed.replicas = Replicas { desired: 1, current: 1, ready: 0, minimum: 1, maximum: 1 };
        fixed.spec.models.truncate(1);
        let mut ended = testing::lease_view();
        ended.id = "c7e30c2d4b5e46f7a8b9c0d1e2f30415".into();
        ended.state = "RELEASED";
        ended.ended_at = Timestamp::from_second(testing::NOON + 3_600).ok();
        ended.replicas = Replicas { minimum: 1, maximum: 4, ..Replicas::default() };
        vec![testing::lease_view(), fixed, ended]
    }

    #[test]
    fn leases_are_a_table() {
        assert_snapshot!(plain(&lease_table(&three(), now(), None)), @r"
        LEASE         STATE         REPLICAS   ENDS     MODELS              MESSAGE
        3f0a9c2d4b5e  READY         2/2 (1-4)  in 42m   resnet50, ensemble
        b1d20c2d4b5e  PROVISIONING  0/1        in 42m   resnet50            no node has a free nvidia.com/gpu
        c7e30c2d4b5e  RELEASED      0/0 (1-4)  18m ago  resnet50, ensemble
        ");
    }

    #[test]
    fn a_narrow_terminal_breaks_words_but_neither_ids_nor_states() {
        let text = plain(&lease_table(&three(), now(), Some(72)));
        assert!(text.lines().all(|line| line.chars().count() <= 72), "{text}");
        assert_snapshot!(text, @r"
        LEASE         STATE         REPLICAS   ENDS     MODELS      MESSAGE
        3f0a9c2d4b5e  READY         2/2 (1-4)  in 42m   resnet50,
                                                        ensemble
        b1d20c2d4b5e  PROVISIONING  0/1        in 42m   resnet50    no node
                                                                    has a free
                                                                    nvidia.com
                                                                    /gpu
        c7e30c2d4b5e  RELEASED      0/0 (1-4)  18m ago  resnet50,
                                                        ensemble
        ");
    }

    #[test]
    fn only_the_state_is_coloured() {
        let mut lease = testing::lease_view();
        lease.spec.models[0].name = "READY".into();
        let text = lease_table(&[lease], now(), None);
        assert_eq!(text.matches("\u{1b}[32mREADY\u{1b}[0m").count(), 1, "{text:?}");
        assert!(text.contains("3f0a9c2d4b5e  \u{1b}[32mREADY"), "{text:?}");
    }

    #[test]
    fn a_lease_is_a_page() {
        let event = Event {
            lease_id: testing::lease_view().id,
            version: 1,
            generation: 1,
            at: Timestamp::from_second(testing::NOON).ok(),
            actor: "ada".into(),
            reason: "Acquired".into(),
            message: "for 2h".into(),
            state: "PENDING",
        };
        let mute = Event { reason: "Reported".into(), message: String::new(), ..event.clone() };
        assert_snapshot!(plain(&lease_page(&testing::lease_view(), &[event, mute], now(), Some(100))), @r"
        Lease       3f0a9c2d4b5e46f7a8b9c0d1e2f30415
        State       READY
        Owner       ada
        Namespace   models
        Endpoint    tms-3f0a9c2d4b5e46f7a8b9c0d1e2f30415.models.svc (HTTP 8000, gRPC 8001), inside the cluster
        Try         curl -i http://tms-3f0a9c2d4b5e46f7a8b9c0d1e2f30415.models.svc:8000/v2/models/resnet50/ready
        Elsewhere   tmsctl lease port-forward 3f0a9c2d4b5e
        Replicas    2 of 2 ready, scaled from 1 to 4
        Scaling     gpuUtilization above 80%, queueTime above 200ms
        Image       nvcr.io/nvidia/tritonserver:25.10-py3
        Resources   1 GPU (nvidia.com/gpu), 4 CPU, 16Gi memory, 1Gi /dev/shm
        Labels      team=search
        Created     1h 18m ago (2026-11-22 16:00:00 UTC)
        Ends        in 42m (2026-11-22 18:00:00 UTC)

        Models
          NAME      STATE  URI                                      MESSAGE
          resnet50  READY  pvc://models/resnet50
          ensemble  READY  https://models.example.com/ensemble.zip

        Events
          WHEN        WHAT      STATE    BY   MESSAGE
          1h 18m ago  Acquired  PENDING  ada  for 2h
        ");
    }

    #[test]
    fn a_written_lease_does_not_count_what_nobody_observes() {
        let mut leases = three();
        for lease in &mut leases {
            lease.state = "WRITTEN";
        }
        let told: Vec<_> = leases.iter().map(|lease| (replicas(lease), replicas_in_words(lease))).collect();
        let scaled = ("? (1-4)".to_owned(), "scaled from 1 to 4, not observed".to_owned());
        assert_eq!(told, [scaled.clone(), ("?/1".to_owned(), "1, not observed".to_owned()), scaled]);
    }

    #[test]
    fn a_script_reads_one_line_a_lease() {
        let lines: String = three().iter().map(lease_line).collect();
        assert_snapshot!(lines.replace('\t', " | "), @r"
        3f0a9c2d4b5e46f7a8b9c0d1e2f30415 | READY | 2 | 2 | 1 | 4 | 2026-11-22T18:00:00Z | ada | resnet50,ensemble
        b1d20c2d4b5e46f7a8b9c0d1e2f30415 | PROVISIONING | 0 | 1 | 1 | 1 | 2026-11-22T18:00:00Z | ada | resnet50
        c7e30c2d4b5e46f7a8b9c0d1e2f30415 | RELEASED | 0 | 0 | 1 | 4 | 2026-11-22T18:00:00Z | ada | resnet50,ensemble
        ");
    }

    #[test]
    fn a_field_never_breaks_the_line() {
        assert_eq!(line(&["a\tb", "c\nd"]), "a b\tc d\n");
    }
}
