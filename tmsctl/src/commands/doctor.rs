//! `tmsctl doctor [LEASE]`.

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use tms_proto::v1::{self, HopOutcome, Verdict};

use super::Global;
use crate::failure::Failure;
use crate::text;

/// Say why leases do not scale: the first broken hop of their metrics
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Looks at everything between the Tritons and the autoscaler: what Prometheus finds, scrapes and records, \
who serves the metrics, and what the autoscaler says. With a lease it looks at that lease's too.

  ✓ works   ✗ is broken   ? could not be looked at   · waits for another hop, or is not needed

Exit codes: 0 where everything works, 1 where a hop is broken, 5 where none is as far as could be looked at.

With -z, one line each, with the first field saying what it is:
  chain  verdict, first broken hop, provider, lease, summary
  hop    name, outcome, expected, found, remedy

Examples:
  tmsctl doctor
  tmsctl doctor 3f0a
  tmsctl doctor -o json | jq -r '.hops[] | select(.outcome == \"BROKEN\") | .remedy'")]
pub struct Arguments {
    /// Id of a lease, or a unique prefix of it [default: only what concerns every lease]
    lease: Option<String>,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    lease_id: String,
    provider: String,
    verdict: &'static str,
    summary: String,
    first_broken: String,
    hops: Vec<Hop>,
}

#[derive(Debug, Serialize)]
struct Hop {
    name: String,
    title: String,
    outcome: &'static str,
    expected: String,
    found: String,
    remedy: String,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    if arguments.lease.as_deref() == Some("") {
        return Err(Failure::usage("an empty id names no lease").hint("leave it out to look at no lease"));
    }
    let connection = global.connect().await?;
    let request = v1::DiagnoseRequest { lease_id: arguments.lease.unwrap_or_default() };
    let answer = connection.answer("Diagnose", connection.server().diagnose(request)).await?;
    let verdict = answer.verdict();
    let diagnosis = Diagnosis::from(answer);
    form.print(&diagnosis, || page(&diagnosis), || lines(&diagnosis))?;
    judge(verdict, diagnosis)
}

/// A machine learns from the exit code what a person reads.
fn judge(verdict: Verdict, diagnosis: Diagnosis) -> Result<(), Failure> {
    let summary = diagnosis.summary.trim_end_matches('.').to_owned();
    match verdict {
        Verdict::Healthy => Ok(()),
        Verdict::Broken => {
            let broken = diagnosis.hops.into_iter().find(|hop| hop.name == diagnosis.first_broken);
            let failure = Failure::broken(summary);
            Err(match broken.filter(|hop| !hop.remedy.is_empty()) {
                Some(hop) => failure.hint(hop.remedy),
                None => failure,
            })
        }
        // A newer server may know a verdict that is not known here.
        Verdict::Unknown | Verdict::Unspecified => Err(Failure::unsure(summary)),
    }
}

impl From<v1::DiagnoseResponse> for Diagnosis {
    fn from(answer: v1::DiagnoseResponse) -> Self {
        Self {
            verdict: match answer.verdict() {
                Verdict::Healthy => "HEALTHY",
                Verdict::Broken => "BROKEN",
                Verdict::Unknown => "UNKNOWN",
                Verdict::Unspecified => "UNSPECIFIED",
            },
            lease_id: answer.lease_id,
            provider: answer.provider,
            summary: answer.summary,
            first_broken: answer.first_broken,
            hops: answer.hops.into_iter().map(Hop::from).collect(),
        }
    }
}

impl From<v1::Hop> for Hop {
    fn from(hop: v1::Hop) -> Self {
        let outcome = match hop.outcome() {
            HopOutcome::Healthy => "HEALTHY",
            HopOutcome::Broken => "BROKEN",
            HopOutcome::Unknown => "UNKNOWN",
            HopOutcome::Waits => "WAITS",
            HopOutcome::Skipped => "SKIPPED",
            HopOutcome::Unspecified => "UNSPECIFIED",
        };
        let v1::Hop { name, title, expected, found, remedy, .. } = hop;
        Self { name, title, outcome, expected, found, remedy }
    }
}

fn page(diagnosis: &Diagnosis) -> String {
    let mut page = text::facts(&[
        ("Lease", diagnosis.lease_id.clone()),
        ("Provider", diagnosis.provider.clone()),
        ("Verdict", diagnosis.summary.clone()),
    ]);
    page.push('\n');
    let widest = diagnosis.hops.iter().map(|hop| hop.title.chars().count()).max().unwrap_or(0);
    for hop in &diagnosis.hops {
        let (mark, colour) = mark(hop.outcome);
        let style = colour.map(AnsiColor::on_default).unwrap_or(Style::new());
        let needs_words = matches!(hop.outcome, "BROKEN" | "UNKNOWN");
        let (title, found) = (&hop.title, if needs_words { "" } else { &hop.found });
        let line = format!("{style}{mark}{style:#} {title:<widest$}  {found}");
        page += line.trim_end();
        page.push('\n');
        if needs_words {
            let told = [("expected", &hop.expected), ("found", &hop.found), ("remedy", &hop.remedy)];
            for (name, words) in told.into_iter().filter(|(_, words)| !words.is_empty()) {
                page += &format!("    {name:<8}  {words}\n");
            }
        }
    }
    page
}

fn mark(outcome: &str) -> (char, Option<AnsiColor>) {
    match outcome {
        "HEALTHY" => ('✓', Some(AnsiColor::Green)),
        "BROKEN" => ('✗', Some(AnsiColor::Red)),
        "UNKNOWN" | "UNSPECIFIED" => ('?', Some(AnsiColor::Yellow)),
        _ => ('·', None),
    }
}

fn lines(diagnosis: &Diagnosis) -> String {
    let Diagnosis { lease_id, provider, verdict, summary, first_broken, hops } = diagnosis;
    let mut lines = text::line(&["chain", verdict, first_broken, provider, lease_id, summary]);
    for Hop { name, outcome, expected, found, remedy, .. } in hops {
        lines += &text::line(&["hop", name, outcome, expected, found, remedy]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn diagnosis(verdict: Verdict, first_broken: &str) -> v1::DiagnoseResponse {
        let hop = |name: &str, title: &str, outcome: HopOutcome, told: [&str; 3]| v1::Hop {
            name: name.to_owned(),
            title: title.to_owned(),
            outcome: outcome.into(),
            expected: told[0].to_owned(),
            found: told[1].to_owned(),
            remedy: told[2].to_owned(),
        };
        v1::DiagnoseResponse {
            lease_id: "3f0a".to_owned(),
            provider: "adapter".to_owned(),
            verdict: verdict.into(),
            summary: "The first broken hop is: labels of PodMonitors.".to_owned(),
            first_broken: first_broken.to_owned(),
            hops: vec![
                hop("prometheus", "Prometheus object", HopOutcome::Healthy, ["one is", "one is there", ""]),
                hop(
                    "podMonitorLabels",
                    "labels of PodMonitors",
                    HopOutcome::Broken,
                    [
                        "a Prometheus selects them",
                        "it selects release=prometheus",
                        "set server.autoscaling.prometheus.podMonitorLabels: {release: prometheus}",
                    ],
                ),
                hop("target", "replicas are scraped", HopOutcome::Waits, ["", "waits for: labels", ""]),
                hop(
                    "metricsServer",
                    "metrics.k8s.io",
                    HopOutcome::Unknown,
                    ["it is served", "no rights", ""],
                ),
            ],
        }
    }

    #[test]
    fn the_broken_hop_is_told_with_what_mends_it() {
        let diagnosis = Diagnosis::from(diagnosis(Verdict::Broken, "podMonitorLabels"));
        assert_snapshot!(anstream::adapter::strip_str(&page(&diagnosis)), @r"
        Lease       3f0a
        Provider    adapter
        Verdict     The first broken hop is: labels of PodMonitors.

        ✓ Prometheus object      one is there
        ✗ labels of PodMonitors
            expected  a Prometheus selects them
            found     it selects release=prometheus
            remedy    set server.autoscaling.prometheus.podMonitorLabels: {release: prometheus}
        · replicas are scraped   waits for: labels
        ? metrics.k8s.io
            expected  it is served
            found     no rights
        ");
    }

    #[test]
    fn the_exit_code_tells_broken_from_healthy_and_from_unseen() {
        for (verdict, code) in [(Verdict::Broken, 1), (Verdict::Unknown, 5), (Verdict::Unspecified, 5)] {
            let failure = judge(verdict, Diagnosis::from(diagnosis(verdict, ""))).unwrap_err();
            assert_eq!(failure.exit_code(), code, "{verdict:?}");
        }
        judge(Verdict::Healthy, Diagnosis::from(diagnosis(Verdict::Healthy, ""))).unwrap();
        let broken = diagnosis(Verdict::Broken, "podMonitorLabels");
        let failure = judge(Verdict::Broken, Diagnosis::from(broken)).unwrap_err();
        assert!(failure.report().contains("podMonitorLabels: {release: prometheus}"), "{failure:?}");
    }
}
