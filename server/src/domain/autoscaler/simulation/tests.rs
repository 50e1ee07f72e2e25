//! Simulations whose outcome is known beforehand.

use super::*;
use crate::domain::scaling::{Behavior, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};

/// One request takes a tenth of a second, one at a time: ten per second.
fn service() -> Service {
    Service {
        seconds_per_request: 0.1,
        served_at_once: 1,
        pending_seconds: 20,
        loading_seconds: 40,
        gpus: 1,
        cpu_percent_when_busy: None,
        memory_percent: None,
        gpu_memory_percent: None,
        arrivals: Arrivals::Even,
    }
}

fn question(metrics: &[(MetricName, i64)], maximum: u32, csv: &str, shape: Shape) -> Question {
    let rules = |window, value, period_seconds| ScalingRules {
        stabilization_window_seconds: window,
        select_policy: SelectPolicy::Max,
        policies: vec![ScalingPolicy { kind: PolicyKind::Pods, value, period_seconds }],
        tolerance_milli: None,
    };
    Question {
        autoscaling: Autoscaling {
            minimum: 1,
            maximum,
            metrics: metrics.iter().copied().collect(),
            behavior: Behavior { scale_up: rules(0, 4, 15), scale_down: rules(60, 1, 60) },
            triggers: Vec::new(),
        },
        trace: Trace::parse(csv, shape).unwrap(),
        service: service(),
        timing: Timing { scrape_seconds: 15, window_seconds: 60, delay_seconds: 15 },
        options: Options::default(),
    }
}

const GPU: (MetricName, i64) = (MetricName::GpuUtilization, 80);
const QUEUE: (MetricName, i64) = (MetricName::QueueTime, 50_000);

/// Ten minutes of 30 requests per second between five quiet minutes and an idle half hour.
const RUSH: &str = "time,requests_per_second\n0,2\n300,30\n900,0\n2700,0\n";

fn replicas(simulation: &Simulation, second: i64) -> i32 {
    simulation.rows.iter().rfind(|row| row.second <= second).unwrap().replicas
}

#[test]
fn utilization_grows_to_what_the_load_needs_and_shrinks_again() {
    let simulation = simulate(&question(&[GPU], 8, RUSH, Shape::Step)).unwrap();
    assert_eq!(replicas(&simulation, 299), 1, "a fifth of one is enough");
    // While it starts and catches up it asks for more than the four that 30 per second need at 80 percent.
    assert!((4..=8).contains(&replicas(&simulation, 899)));
    assert_eq!(replicas(&simulation, 2700), 1, "idle");
    let rush = simulation.rows.iter().find(|row| row.replicas > 1).unwrap();
    assert!((315..=360).contains(&rush.second), "it learns of the rush at {}", rush.second);
    let ready = simulation.rows.iter().find(|row| row.ready > 1).unwrap();
    assert!((60..90).contains(&(ready.second - rush.second)), "a cold start lies between");
    assert_eq!(simulation.summary.waiting_at_end, 0.0);
    assert!((simulation.summary.requests - (300.0 * 2.0 + 600.0 * 30.0)).abs() < 40.0);
}

#[test]
fn queue_time_grows_with_the_backlog_and_every_request_is_served() {
    let simulation = simulate(&question(&[QUEUE], 6, RUSH, Shape::Step)).unwrap();
    let calm = simulation.rows.iter().filter(|row| row.second < 300);
    assert!(calm.clone().all(|row| row.replicas == 1 && row.queue_time_us.unwrap_or(0.0) == 0.0));
    assert_eq!(simulation.summary.most_replicas, 6, "the first backlog takes all it may have");
    assert_eq!(replicas(&simulation, 2700), 1);
    assert!(
        simulation.summary.longest_queue_time_us > 30e6,
        "a minute of cold start at three times the capacity"
    );
    assert!(simulation.summary.queue_time_95_us <= simulation.summary.queue_time_99_us);
}

#[test]
fn a_load_within_the_capacity_changes_nothing_and_costs_what_one_replica_does() {
    let steady = "time,requests_per_second\n0,7\n3600,7\n";
    for metric in [GPU, QUEUE] {
        let simulation = simulate(&question(&[metric], 5, steady, Shape::Linear)).unwrap();
        assert!(simulation.rows.iter().all(|row| row.replicas == 1), "{metric:?}");
        assert_eq!(simulation.rows.len(), 241);
        assert!((simulation.summary.gpu_hours - 1.0).abs() < 0.001);
        assert!((simulation.rows[100].utilization - 0.7).abs() < 1e-6);
        assert_eq!(simulation.summary.changes, 0);
    }
}

#[test]
fn requests_that_arrive_by_chance_wait_before_the_capacity_is_reached() {
    let mut question = question(&[GPU], 1, "time,requests_per_second\n0,8\n600,8\n", Shape::Step);
    question.service.arrivals = Arrivals::Random;
    let simulation = simulate(&question).unwrap();
    // One at a time, 0.8 busy, always 0.1 s: 0.8 / (2 × 0.2) × 0.1 s, exactly.
    let wait = simulation.rows[20].queue_time_us.unwrap();
    assert!((wait - 200_000.0).abs() < 1.0, "{wait}");
    assert!((simulation.summary.queue_time_95_us / 200_000.0 - 1.0).abs() < 0.01);
}

#[test]
fn more_load_never_takes_fewer_replicas_in_total() {
    let used = |rate| {
        let csv = format!("time,requests_per_second\n0,2\n300,{rate}\n1500,2\n2400,2\n");
        simulate(&question(&[GPU], 20, &csv, Shape::Step)).unwrap().summary.mean_replicas
    };
    let used: Vec<_> = [2, 10, 20, 40, 80, 120].map(used).into();
    assert!(used.is_sorted(), "{used:?}");
}

#[test]
fn each_metric_drives_it_as_it_drives_the_controller() {
    let mut question = question(&[(MetricName::CpuUtilization, 50)], 8, RUSH, Shape::Step);
    question.service.cpu_percent_when_busy = Some(100.0);
    let by_cpu = simulate(&question).unwrap();
    assert!(by_cpu.summary.most_replicas >= 6, "30 per second at half of ten each");
    assert_eq!(replicas(&by_cpu, 2700), 1);

    for metric in [MetricName::MemoryUtilization, MetricName::GpuMemoryUtilization] {
        question.autoscaling.metrics = BTreeMap::from([(metric, 50)]);
        question.service.memory_percent = Some(90.0);
        question.service.gpu_memory_percent = Some(90.0);
        let by_memory = simulate(&question).unwrap();
        // What does not fall when replicas are added drives it to the maximum: the trap of memory as a metric.
        assert_eq!(replicas(&by_memory, 2700), 8, "{metric:?}");
    }
}

#[test]
fn the_same_question_has_the_same_answer() {
    let rate = |quarter: i64| 5 + 40 * i64::from(quarter % 12 < 3);
    let lines = (0..=96).map(|quarter| format!("{},{}\n", quarter * 900, rate(quarter)));
    let csv = format!("time,requests_per_second\n{}", lines.collect::<String>());
    let question = question(&[GPU, QUEUE], 10, &csv, Shape::Linear);
    let first = simulate(&question).unwrap();
    assert_eq!(first, simulate(&question).unwrap());
    assert_eq!(first.rows.len(), 5761);
    assert!(first.summary.changes > 10);
}

#[test]
fn what_is_assumed_is_said() {
    let simulation = simulate(&question(&[GPU], 8, RUSH, Shape::Step)).unwrap();
    let subjects: Vec<_> = simulation.assumptions.iter().map(|assumption| assumption.subject).collect();
    assert_eq!(
        subjects,
        ["service", "arrivals", "balance", "clients", "start", "end", "metrics", "utilization", "cost"]
    );
    assert_eq!(
        simulation.assumptions[0].text,
        "Each request takes 0.1 s, and a replica serves 1 at once: 10.0 requests per second, whatever the load."
    );
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    type Change = fn(&mut Question);
    let cases: [(Change, &str); 5] = [
        (
            |question| question.autoscaling.minimum = 0,
            "minimum is 0, allowed is 1 or more: what wakes a lease at zero is not in the trace",
        ),
        (
            |question| question.service.seconds_per_request = 0.0,
            "service seconds is 0, allowed is a microsecond or more",
        ),
        (|question| question.service.served_at_once = 0, "served at once is 0, allowed is 1 or more"),
        (|question| question.timing.scrape_seconds = 0, "scrape interval is 0, allowed is 1 second or more"),
        (
            |question| question.autoscaling.metrics = BTreeMap::from([(MetricName::CpuUtilization, 80)]),
            "cpuUtilization scales the lease, but the CPU of a busy replica is not given: say how much of it a replica uses",
        ),
    ];
    for (change, expected) in cases {
        let mut question = question(&[GPU], 8, RUSH, Shape::Step);
        change(&mut question);
        assert_eq!(simulate(&question).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_trace_is_read_with_its_faults() {
    let trace = |csv| Trace::parse(csv, Shape::Linear);
    let linear =
        trace("requests_per_second, note, time\n0,a,2026-11-22T08:00:00Z\n10,b,2026-11-22T08:01:40Z\n")
            .unwrap();
    assert_eq!(
        (linear.seconds(), linear.rate_at(0.0), linear.rate_at(25.0), linear.rate_at(100.0)),
        (100, 0.0, 2.5, 10.0)
    );
    let step = Trace::parse("time,requests_per_second\n5,1\n\n10,3\n15,7\n", Shape::Step).unwrap();
    assert_eq!((step.rate_at(4.9), step.rate_at(5.0), step.rate_at(10.0)), (1.0, 3.0, 7.0));
    for (csv, expected) in [
        ("", "line 1: there is no column time; the header names `time` and `requests_per_second`"),
        (
            "time\n",
            "line 1: there is no column requests_per_second; the header names `time` and `requests_per_second`",
        ),
        (
            "time,requests_per_second\n0,1\n",
            "the trace has 1 lines of load, at least 2 are needed: the last one is its end",
        ),
        (
            "time,requests_per_second\n0,1\n0,2\n",
            "line 3: its time is not after that of the line before; sort the lines by time",
        ),
        (
            "time,requests_per_second\n0,-1\n",
            "line 2: requests_per_second is \"-1\", allowed is a number that is not negative",
        ),
        (
            "time,requests_per_second\n0\n",
            "line 2: requests_per_second is \"\", allowed is a number that is not negative",
        ),
        (
            "time,requests_per_second\nnoon,1\n",
            "line 2: time is \"noon\", allowed is a number of seconds or a time such as 2026-11-22T08:00:00Z",
        ),
        (
            "time,requests_per_second\n0,1\n9e9,1\n",
            "the trace lasts 9000000000 seconds, at most 2678400 are allowed",
        ),
    ] {
        assert_eq!(trace(csv).unwrap_err().to_string(), expected);
    }
}

/// What `make bench-scaling` saw of real Tritons: the columns of docs/scaling.csv.
const RECORDED: &str = include_str!("recorded.csv");

/// What the bench was set to, and what it measured: a request takes 104 ms and a new replica serves 12 s after the decision.
fn recorded_question(trace: Trace) -> Question {
    let rules = |window, value| ScalingRules {
        stabilization_window_seconds: window,
        select_policy: SelectPolicy::Max,
        policies: vec![ScalingPolicy { kind: PolicyKind::Pods, value, period_seconds: 15 }],
        tolerance_milli: None,
    };
    Question {
        autoscaling: Autoscaling {
            minimum: 1,
            maximum: 4,
            metrics: [QUEUE].into(),
            behavior: Behavior { scale_up: rules(0, 2), scale_down: rules(30, 1) },
            triggers: Vec::new(),
        },
        trace,
        service: Service {
            seconds_per_request: 0.104,
            pending_seconds: 2,
            loading_seconds: 10,
            arrivals: Arrivals::Random,
            ..service()
        },
        timing: Timing { scrape_seconds: 5, window_seconds: 20, delay_seconds: 5 },
        options: Options { sync_period: SignedDuration::from_secs(5), ..Options::default() },
    }
}

#[test]
fn what_real_tritons_did_is_simulated_within_one_replica_at_95_of_100_syncs() {
    let (header, lines) = RECORDED.split_once('\n').unwrap();
    for provider in ["builtin", "builtin over Prometheus"] {
        let lines: Vec<_> = lines.lines().filter(|line| line.starts_with(&format!("{provider},"))).collect();
        let recorded: BTreeMap<i64, i32> = lines
            .iter()
            .map(|line| {
                let fields: Vec<_> = line.split(',').collect();
                (fields[1].parse().unwrap(), fields[3].parse().unwrap())
            })
            .collect();
        let trace = Trace::parse(&format!("{header}\n{}", lines.join("\n")), Shape::Step).unwrap();
        let simulation = simulate(&recorded_question(trace)).unwrap();
        let real = |second: i64| *recorded.range(..=second).next_back().unwrap().1;
        let pairs: Vec<_> =
            simulation.rows.iter().map(|row| (row.second, row.replicas, real(row.second))).collect();
        let close = pairs.iter().filter(|(_, ours, theirs)| (ours - theirs).abs() <= 1).count();
        assert!(close * 100 >= 95 * pairs.len(), "{provider}: {close} of {}: {pairs:?}", pairs.len());
        assert_eq!(simulation.summary.most_replicas, recorded.values().copied().max().unwrap());
        assert_eq!(pairs.last().map(|(_, ours, theirs)| (*ours, *theirs)), Some((1, 1)), "{provider}");
    }
}
