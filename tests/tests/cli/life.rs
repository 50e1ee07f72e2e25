//! The life of a lease by `tmsctl`, on a server that writes manifests: what each command prints, in each form.

use std::fs;

use crate::assert_shows;
use crate::harness::{CREATE, Person, Place, VALUES};

#[test]
fn renewal_by_use_is_turned_off_and_on_where_use_is_observed() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let id = person.tmsctl(&format!("{CREATE} -z")).done();
    assert!(person.tmsctl(&format!("lease update {id} --no-auto-renew")).done().starts_with("Lease "));
    let said = person.tmsctl(&format!("lease update {id} --auto-renew"));
    assert_eq!(said.code, 1, "{}", said.whole());
    assert!(said.err.contains("(renewal.automatic_renewal @ Update)"), "{}", said.err);
    assert!(said.err.contains("what becomes of manifests is not observed"), "{}", said.err);
}

#[test]
fn a_lease_is_created_followed_changed_renewed_and_released() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let created = person
        .tmsctl(&format!("{CREATE} --enable-autoscaling --autoscaling-max-replicas 4 --label team=search"));
    assert_shows!(created.whole(), @r"
    Lease <lease> is created and ends <when> (<time>)
    Lease <lease> is WRITTEN at tms-<lease>.default.svc (HTTP 8000, gRPC 8001)
    PENDING
    model resnet50 PENDING
    WRITTEN
    exit 0
    ");
    let id = created.out[6..38].to_owned();

    assert_shows!(person.tmsctl("lease list").whole(), @r"
    LEASE  STATE  REPLICAS  ENDS  MODELS
    <short>  WRITTEN  ? (1-4)  <when>  resnet50
    exit 0
    ");
    assert_shows!(person.tmsctl(&format!("lease status {}", &id[..6])).whole(), @r"
    Lease  <lease>
    State  WRITTEN
    Owner  anonymous
    Namespace  default
    Endpoint  tms-<lease>.default.svc (HTTP 8000, gRPC 8001), inside the cluster
    Replicas  scaled from 1 to 4, not observed
    Scaling  gpuUtilization above 80%, queueTime above 10ms
    Image  nvcr.io/nvidia/tritonserver:26.07-py3
    Resources  1 GPU (nvidia.com/gpu), 4 CPU, 16Gi memory, 1Gi /dev/shm
    Labels  team=search
    Created  <when> (<time>)
    Ends  <when> (<time>)

    Models
      NAME  STATE  URI  MESSAGE
      resnet50  PENDING  https://models.example.com/resnet50.tar.gz

    Events
      WHEN  WHAT  STATE  BY  MESSAGE
      <when>  Acquired  PENDING  anonymous  acquired for 1h, until <time>
      <when>  StateChanged  WRITTEN  tms  PENDING → WRITTEN
    exit 0
    ");
    let update = format!("lease update {id} --replicas 2 --label team=ads");
    assert_shows!(person.tmsctl(&update).whole(), @r"
    Lease <lease> is updated

    Lease  <lease>
    State  WRITTEN
    Owner  anonymous
    Namespace  default
    Endpoint  tms-<lease>.default.svc (HTTP 8000, gRPC 8001), inside the cluster
    Replicas  2, not observed
    Image  nvcr.io/nvidia/tritonserver:26.07-py3
    Resources  1 GPU (nvidia.com/gpu), 4 CPU, 16Gi memory, 1Gi /dev/shm
    Labels  team=ads
    Created  <when> (<time>)
    Ends  <when> (<time>)

    Models
      NAME  STATE  URI  MESSAGE
      resnet50  PENDING  https://models.example.com/resnet50.tar.gz
    exit 0
    ");
    assert_shows!(person.tmsctl(&format!("lease renew {id} --lifetime 2h")).whole(), @r"
    Lease <lease> ends <when> (<time>)
    exit 0
    ");
    assert_shows!(person.tmsctl(&format!("lease renew {id} --lifetime 9h")).whole(), @r"
    Lease <lease> ends <when> (<time>)
    warning: granted 8h, which is the longest (server.leases.maximumLifetime)
    exit 0
    ");
    assert_shows!(person.tmsctl(&format!("lease release {id}")).whole(), @r"
    Lease <lease> is released; its objects are being removed
    exit 0
    ");
    assert_shows!(person.tmsctl("lease list").whole(), @r"
    You have no leases; --all shows those that have ended, too
    exit 0
    ");
    assert_shows!(person.tmsctl("lease list --all").whole(), @r"
    LEASE  STATE  REPLICAS  ENDS  MODELS
    <short>  RELEASED  0/0  <when>  resnet50
    exit 0
    ");
    assert_shows!(person.tmsctl(&format!("lease renew {id}")).whole(), @r"
    fatal: lease <lease> was released at <time> (@ Renew)
    hint: `tmsctl lease list --all` shows the state of each of your leases
    exit 1
    ");
}

#[test]
fn every_command_has_a_form_for_scripts() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let id = person.tmsctl(&format!("{CREATE} -z")).done();
    assert_eq!(id.len(), 32, "{id}");
    assert_shows!(person.tmsctl("lease list -z").done(), @"<lease>	WRITTEN	0	0	1	1	<time>	anonymous	resnet50");
    assert_eq!(person.tmsctl("lease list -z").done(), person.tmsctl(&format!("lease status {id} -z")).done());
    assert_shows!(person.tmsctl(&format!("lease renew {id} -z")).done(), @"<lease>	<time>");
    assert_shows!(person.tmsctl("target list -z").done(), @"lab	http://<address>	default");
    assert_shows!(person.tmsctl("version -z").done(), @"0.1.0	0.1.0	http://<address>	anonymous");
    assert_shows!(person.tmsctl("server bounds -z").done(), @r"
    cpuUtilization	true	false	80	50	85
    gpuMemoryUtilization	false	false	80	50	85
    gpuUtilization	true	true	80	50	85
    memoryUtilization	false	false	80	50	85
    queueTime	true	true	10000	10000
    ");
    assert_eq!(person.tmsctl(&format!("lease release {id} -z")).done(), id);
    assert_eq!(person.tmsctl("lease list -z").whole(), "exit 0");
}

#[test]
fn json_and_yaml_say_the_same() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let scaled =
        format!("{CREATE} --enable-autoscaling --autoscaling-queue-time=200ms -o yaml --lifetime 2h");
    assert_shows!(person.tmsctl(&scaled).done(), @r#"
    lease:
      id: <lease>
      owner: anonymous
      namespace: default
      spec:
        models:
        - name: resnet50
          uri: https://models.example.com/resnet50.tar.gz
        bespoke:
          image: nvcr.io/nvidia/tritonserver:26.07-py3
          gpus: 1
          gpu_resource: nvidia.com/gpu
          cpu: "4"
          memory: 16Gi
          shared_memory: 1Gi
          environment: {}
          node_selector: {}
          tolerations: []
          affinity_json: ""
        replicas: null
        autoscaling:
          min_replicas: 1
          max_replicas: 4
          metrics:
            gpuUtilization:
              enable: true
              threshold: 80
            queueTime:
              enable: true
              threshold: 200000
          behavior:
            scale_up:
              stabilization_window_seconds: 15
              select_policy: Max
              policies:
              - type: Percent
                value: 100
                period_seconds: 60
              - type: Pods
                value: 2
                period_seconds: 60
            scale_down:
              stabilization_window_seconds: 300
              select_policy: Max
              policies:
              - type: Pods
                value: 1
                period_seconds: 120
        lifetime: 7200s
        labels: {}
        automatic_renewal: null
      state: WRITTEN
      message: ""
      created_at: "<time>"
      expires_at: "<time>"
      ended_at: null
      closed_at: null
      generation: 1
      version: 2
      replicas:
        desired: 0
        current: 0
        ready: 0
        minimum: 1
        maximum: 4
      models:
      - name: resnet50
        state: PENDING
        message: ""
        downloaded_bytes: null
        total_bytes: null
      endpoint:
        host: tms-<lease>.default.svc
        http_port: 8000
        grpc_port: 8001
      active_metrics:
        gpuUtilization: 80
        queueTime: 200000
      last_used_at: null
    warnings: []
    "#);
    for line in ["lease list", "target list", "version", "server bounds", "server info"] {
        let json = person.tmsctl(&format!("{line} -o json"));
        let json: serde_json::Value = serde_json::from_str(&json.done()).unwrap();
        let yaml = person.tmsctl(&format!("{line} -o yaml")).done();
        // What JSON has must be in YAML: each of its keys begins a line there.
        for key in keys(&json) {
            let has = |line: &str| line.trim_start_matches([' ', '-']).starts_with(&format!("{key}:"));
            assert!(yaml.lines().any(has), "{line}: {key} is not in\n{yaml}");
        }
    }
}

fn keys(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => {
            map.iter().flat_map(|(key, value)| [vec![key.clone()], keys(value)].concat()).collect()
        }
        serde_json::Value::Array(items) => items.iter().flat_map(keys).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_dry_run_creates_nothing_and_prints_what_would_be_written() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let flags = "--enable-autoscaling --autoscaling-max-replicas 3";
    let planned = person.tmsctl(&format!("{CREATE} {flags} --dry-run")).done();
    let kinds: Vec<_> = planned.lines().filter(|line| line.starts_with("kind: ")).collect();
    assert_eq!(
        kinds.join(", ").replace("kind: ", ""),
        "Deployment, Service, Service, HorizontalPodAutoscaler, PodMonitor, PrometheusRule, PodDisruptionBudget"
    );
    assert_eq!(person.tmsctl("lease list -z --all").done(), "");

    let id = person.tmsctl(&format!("{CREATE} {flags} -z")).done();
    let folder = place.path("manifests").join(&id);
    let written = fs::read_to_string(folder.join("horizontalpodautoscaler.yaml")).unwrap();
    let stripped = |text: &str, id: &str| text.replace(id, "ID");
    let planned_id = planned.lines().find_map(|line| line.strip_prefix("  name: tms-")).unwrap();
    let installation = |line: &&str| !line.contains("installation");
    for line in stripped(&written, &id).lines().filter(installation) {
        assert!(stripped(&planned, planned_id).lines().any(|planned| planned == line), "{line}");
    }
}

#[test]
fn a_prefix_names_a_lease_unless_it_is_ambiguous() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    // Of 17 ids two begin with the same digit.
    let mut ids: Vec<_> = (0..17).map(|_| person.tmsctl(&format!("{CREATE} -z --no-wait")).done()).collect();
    ids.sort();
    let twins = ids.windows(2).find(|pair| pair[0][..1] == pair[1][..1]).unwrap();
    let (first, second) = (&twins[0], &twins[1]);
    let said = person.tmsctl(&format!("lease status {}", &first[..1]));
    assert_eq!(said.code, 1);
    assert!(said.err.contains(first) && said.err.contains(second), "{}", said.err);
    let named = |prefix: &str| ids.iter().filter(|id| id.starts_with(prefix)).count();
    let unique = (1..32).map(|length| &second[..length]).find(|prefix| named(prefix) == 1).unwrap();
    assert!(person.tmsctl(&format!("lease status {unique} -z")).done().starts_with(second.as_str()));
}

#[test]
fn a_watch_prints_each_change_once() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let id = person.tmsctl(&format!("{CREATE} -z")).done();
    let mut watch = person.starts(&format!("lease watch {}", &id[..8]));
    let mut lines = vec![watch.line()];
    for change in ["renew", "update --replicas 2", "update --label a=b", "release"] {
        let (verb, flags) = change.split_once(' ').unwrap_or((change, ""));
        person.tmsctl(&format!("lease {verb} {id} {flags}")).done();
    }
    // The watch of one lease ends by itself when its objects are gone.
    let rest = watch.end();
    assert_eq!((rest.code, rest.err.as_str()), (0, ""));
    lines.extend(rest.out.lines().map(str::to_owned));
    let told: Vec<_> = lines.iter().map(|line| line.split_once("  ").unwrap().1.trim_start()).collect();
    assert_shows!(told.join("\n"), @r"
    <short>  WRITTEN
    <short>  WRITTEN  Renewed  renewed for 1h, until <time>
    <short>  WRITTEN  Updated  changed replicas to 2
    <short>  WRITTEN  Updated  changed labels
    <short>  RELEASED  Released
    <short>  RELEASED  Closed  its objects are gone
    ");
}

#[test]
fn a_pipe_that_closes_is_no_fault() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    person.tmsctl(&format!("{CREATE} -z")).done();
    for line in ["lease list", "lease list -o json", "--help", "completions bash", "server bounds"] {
        let said = person.shell(&format!("tmsctl {line} | true; echo ${{PIPESTATUS[0]}}"));
        assert_eq!(said.whole(), "0\nexit 0", "{line}");
    }
    assert_eq!(person.shell("tmsctl lease list | head -1 | cut -c1-5").whole(), "LEASE\nexit 0");
    let full = person.shell("tmsctl lease list >/dev/full");
    assert_shows!(full.whole(), @r"
    fatal: standard output cannot be written: No space left on device (os error 28)
    exit 1
    ");
}

#[test]
fn a_narrow_terminal_is_not_overrun() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let id = person.tmsctl(&format!("{CREATE} -z --label team=search")).done();
    for line in ["lease list", "lease list --all", "target list", "server bounds"] {
        let said = person.shell(&format!("script -qc 'stty cols 60 rows 30; tmsctl {line}' /dev/null"));
        for shown in said.done().lines() {
            let width = strip(shown.trim_end()).chars().count();
            assert!(width <= 60 || !shown.contains("  "), "{line}: {width} columns: {shown}");
        }
    }
    let events = person
        .shell(&format!("script -qc 'stty cols 60 rows 30; tmsctl lease status {id}' /dev/null"))
        .done();
    let events = events.split("Events").nth(1).unwrap().lines().map(|line| strip(line.trim_end()));
    assert!(events.into_iter().all(|line| line.chars().count() <= 60));
}

/// Takes the colours out.
fn strip(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('m').map_or(part, |(_, rest)| rest)).collect::<String>()
}

#[test]
fn help_can_be_copied_and_names_every_command() {
    let person = Person::new();
    let mut lines = vec![String::new()];
    let mut seen = 0;
    while let Some(line) = lines.pop() {
        let said = person.tmsctl(&format!("{line} --help"));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}");
        seen += 1;
        let listed = said.out.split("\nCommands:\n").nth(1).into_iter();
        let commands = listed.flat_map(|text| text.lines().take_while(|line| !line.is_empty()));
        let names = commands.filter_map(|text| text.split_whitespace().next());
        lines.extend(names.filter(|name| *name != "help").map(|name| format!("{line} {name}")));
        for shown in said.out.lines() {
            let width = shown.chars().count();
            assert!(width <= 100, "{line}: {width} columns: {shown}");
        }
        // An example that is broken without a backslash is two commands to a shell.
        let examples = said.out.split("Examples:\n").nth(1).unwrap_or_default();
        for pair in examples.lines().collect::<Vec<_>>().windows(2) {
            let begins = ["", "#", "tmsctl", "id=$("].iter().any(|word| match *word {
                "" => pair[1].trim().is_empty(),
                word => pair[1].trim_start().starts_with(word),
            });
            assert!(begins || pair[0].ends_with('\\'), "{line}: {}\n{}", pair[0], pair[1]);
        }
    }
    assert_eq!(seen, 26, "a new command is not looked at here");
}
