//! A storm of creates, updates, renewals and releases on a server that is killed again and again. Whatever was
//! acknowledged holds afterwards, and nothing else is there. `TMS_TEST_KILLS` says how often it is killed, and
//! `TMS_TEST_SEED` repeats the chances of an earlier run.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Duration;

use futures::future::join_all;
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_proto::v1::{
    AcquireRequest, Lease, LeaseSpec, LeaseState, ListRequest, PlanRequest, ReleaseRequest, RenewRequest,
    StatusRequest, UpdateRequest,
};
use tms_tests::cluster::Cluster;
use tms_tests::process::{Process, channel};
use tms_tests::random::{Random, number};
use tms_tests::server::{Database, Target, World, autoscaled, spec};
use tms_tests::wait::{inside, until};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How often the server is killed, unless `TMS_TEST_KILLS` says.
const KILLS: u64 = 6;
/// Longest life of a server, in milliseconds from its start: some do not live to listen.
const LONGEST_LIFE: u64 = 2_000;
/// Clients at a time, the leases that each holds at most, and its longest pause between two calls in milliseconds.
const CLIENTS: u64 = 8;
const HELD: usize = 4;
const LONGEST_PAUSE: u64 = 60;
/// A call that takes longer is given up and made anew.
const CALL: Duration = Duration::from_secs(10);

#[test]
fn nothing_acknowledged_is_lost_in_a_storm_with_kills_on_sqlite() {
    in_a_storm(Database::Sqlite);
}

#[test]
fn nothing_acknowledged_is_lost_in_a_storm_with_kills_on_postgres() {
    in_a_storm(Database::Postgres);
}

fn in_a_storm(database: Database) {
    let Some(cluster) = Cluster::shared() else { return };
    let (seed, kills) = (Random::seed(), number("TMS_TEST_KILLS").unwrap_or(KILLS));
    println!("storm on {database:?}: TMS_TEST_SEED={seed} TMS_TEST_KILLS={kills}");
    inside(cluster, || async {
        let Some(world) = World::new(database, Target::Kubernetes(cluster)).await else { return };
        let (storm, mut process) = storm(&world, seed, kills).await;
        let mut leases = process.leases().await;
        settled(&world, &mut leases, &storm.told).await;

        let stored = all(&mut leases).await;
        let (lost, doubled) = (lost(&stored, &storm.told), doubled(&stored, &storm.told));
        let orphans = orphans(&world, &storm.told);
        let Tally { creates, updates, renewals, releases, retries } = storm.tally;
        println!(
            "storm on {database:?}: {kills} kills, {creates} creates, {updates} updates, {renewals} renewals, \
             {releases} releases, {retries} retries: {} lost, {} doubled, {} orphans (seed {seed})",
            lost.len(),
            doubled.len(),
            orphans.len()
        );
        assert_eq!((lost, doubled, orphans), Default::default());
        again(&mut leases, &storm.told).await;
        assert!(process.terminate().await.success());
    });
}

/// What clients did, and were told.
struct Storm {
    told: Vec<Told>,
    tally: Tally,
}

/// A lease as its client was told of it last.
struct Told {
    request: AcquireRequest,
    lease: Lease,
    is_released: bool,
}

/// How many calls were acknowledged, and how many had to be made anew.
#[derive(Clone, Copy, Default)]
struct Tally {
    creates: u32,
    updates: u32,
    renewals: u32,
    releases: u32,
    retries: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.creates += other.creates;
        self.updates += other.updates;
        self.renewals += other.renewals;
        self.releases += other.releases;
        self.retries += other.retries;
    }
}

/// Lets clients loose on a server, kills it so many times, and returns what they were told and the last server.
async fn storm(world: &World, seed: u64, kills: u64) -> (Storm, Process) {
    let (address, addresses) = watch::channel(None);
    let calm = CancellationToken::new();
    let clients = (0..CLIENTS)
        .map(|number| Client::new(format!("{seed}-{number}"), seed + number, addresses.clone()))
        .map(|client| client.run(calm.clone()));
    let killer = async {
        let mut random = Random::new(seed);
        for _ in 0..kills {
            let mut process = Process::start(world, "server", &[]);
            let listens = async {
                address.send_replace(Some(process.address().await));
                std::future::pending::<()>().await;
            };
            let life = Duration::from_millis(random.within(0..LONGEST_LIFE));
            // The end of its life is the only way out.
            let _ = tokio::time::timeout(life, listens).await;
            process.kill();
            address.send_replace(None);
        }
        let mut process = Process::start(world, "server", &[]);
        address.send_replace(Some(process.address().await));
        calm.cancel();
        process
    };
    let (clients, process) = futures::join!(join_all(clients), killer);

    let mut storm = Storm { told: Vec::new(), tally: Tally::default() };
    for client in clients {
        storm.told.extend(client.told);
        storm.tally += client.tally;
    }
    (storm, process)
}

/// One caller with leases of its own, who insists on each call until it is acknowledged.
struct Client {
    name: String,
    random: Random,
    addresses: watch::Receiver<Option<SocketAddr>>,
    told: Vec<Told>,
    tally: Tally,
}

impl Client {
    fn new(name: String, seed: u64, addresses: watch::Receiver<Option<SocketAddr>>) -> Self {
        Self { name, random: Random::new(seed), addresses, told: Vec::new(), tally: Tally::default() }
    }

    async fn run(mut self, calm: CancellationToken) -> Self {
        while !calm.is_cancelled() {
            self.act().await;
            tokio::time::sleep(Duration::from_millis(self.random.within(0..LONGEST_PAUSE))).await;
        }
        self
    }

    async fn act(&mut self) {
        let held: Vec<_> = (0..self.told.len()).filter(|index| !self.told[*index].is_released).collect();
        let Some(one) = self.random.one_of(&held).copied() else { return self.create().await };
        match self.random.within(0..10) {
            0..4 if held.len() < HELD => self.create().await,
            0..7 => self.release(one).await,
            7..9 => self.update(one).await,
            _ => self.renew(one).await,
        }
    }

    async fn create(&mut self) {
        let request_id = format!("{}-{}", self.name, self.told.len());
        let request = AcquireRequest { spec: Some(self.scaling()), request_id, no_wait: true };
        let asked = request.clone();
        let lease = self.insist(async |mut leases| acquired(&mut leases, asked.clone()).await).await;
        self.told.push(Told { request, lease, is_released: false });
        self.tally.creates += 1;
    }

    async fn update(&mut self, index: usize) {
        let LeaseSpec { replicas, autoscaling, .. } = self.scaling();
        let lease_id = self.told[index].lease.id.clone();
        let request = UpdateRequest { lease_id, replicas, autoscaling, ..UpdateRequest::default() };
        let answer = self.insist(async |mut leases| leases.update(request.clone()).await).await;
        self.told[index].lease = answer.into_inner().lease.unwrap();
        self.tally.updates += 1;
    }

    async fn renew(&mut self, index: usize) {
        let request = RenewRequest { lease_id: self.told[index].lease.id.clone(), lifetime: None };
        let answer = self.insist(async |mut leases| leases.renew(request.clone()).await).await;
        self.told[index].lease = answer.into_inner().lease.unwrap();
        self.tally.renewals += 1;
    }

    async fn release(&mut self, index: usize) {
        let request = ReleaseRequest { lease_id: self.told[index].lease.id.clone() };
        let answer = self.insist(async |mut leases| leases.release(request.clone()).await).await;
        self.told[index].lease = answer.into_inner().lease.unwrap();
        self.told[index].is_released = true;
        self.tally.releases += 1;
    }

    /// A wish for some replicas, fixed or autoscaled.
    fn scaling(&mut self) -> LeaseSpec {
        let number = 1 + self.random.within(0..2) as u32;
        match self.random.within(0..2) {
            0 => LeaseSpec { replicas: Some(number), ..spec() },
            _ => autoscaled(number, number + 2),
        }
    }

    /// Makes a call until it is answered by whichever server is there.
    async fn insist<T>(&mut self, call: impl AsyncFn(LeaseServiceClient<Channel>) -> Result<T, Status>) -> T {
        loop {
            let address = *self.addresses.wait_for(Option::is_some).await.expect("a server follows");
            let leases = LeaseServiceClient::new(channel(address.unwrap()));
            match tokio::time::timeout(CALL, call(leases)).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(status)) if is_away(&status) => {}
                Ok(Err(status)) => panic!("{}: {status:?}", self.name),
                Err(_) => {}
            }
            self.tally.retries += 1;
            tokio::time::sleep(Duration::from_millis(self.random.within(1..50))).await;
        }
    }
}

async fn acquired(
    leases: &mut LeaseServiceClient<Channel>,
    request: AcquireRequest,
) -> Result<Lease, Status> {
    let mut stream = leases.acquire(request).await?.into_inner();
    let first = stream.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))?;
    Ok(first.lease.unwrap())
}

/// Whether it was the server that went away, which a client sees as one of these.
fn is_away(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
}

/// Waits until the cluster has followed: what was released is closed, the rest is ready and has its objects.
async fn settled(world: &World, leases: &mut LeaseServiceClient<Channel>, told: &[Told]) {
    let mut expected = BTreeSet::new();
    for told in told {
        let id = &told.lease.id;
        if told.is_released {
            until_lease(leases, id, |lease| lease.closed_at.is_some()).await;
            continue;
        }
        until_lease(leases, id, |lease| lease.state() == LeaseState::Ready).await;
        let plan = leases.plan(PlanRequest { spec: told.lease.spec.clone() }).await.unwrap().into_inner();
        let kinds = plan.manifests.iter().filter_map(|manifest| {
            manifest.lines().find_map(|line| line.strip_prefix("kind: ")).map(str::to_owned)
        });
        expected.extend(kinds.map(|kind| format!("{kind} tms-{id}")));
    }
    until("every lease that lives has its objects, one of each", 60, async || {
        let objects: BTreeSet<_> = world.objects().into_iter().collect();
        expected.is_subset(&objects).then_some(())
    })
    .await;
}

async fn until_lease(leases: &LeaseServiceClient<Channel>, id: &str, is_so: impl Fn(&Lease) -> bool) {
    until(&format!("lease {id} is as it was told"), 120, async || {
        let status = leases.clone().status(StatusRequest { lease_id: id.to_owned() }).await.unwrap();
        is_so(&status.into_inner().lease.unwrap()).then_some(())
    })
    .await;
}

/// Every lease that the server knows, by its id.
async fn all(leases: &mut LeaseServiceClient<Channel>) -> BTreeMap<String, Lease> {
    let states = (LeaseState::Pending as i32..=LeaseState::Invalid as i32).collect();
    let mut request = ListRequest { states, page_size: 500, ..ListRequest::default() };
    let mut all = BTreeMap::new();
    loop {
        let page = leases.list(request.clone()).await.unwrap().into_inner();
        all.extend(page.leases.into_iter().map(|lease| (lease.id.clone(), lease)));
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

/// Whatever a client was told that does not hold.
fn lost(stored: &BTreeMap<String, Lease>, told: &[Told]) -> Vec<String> {
    let holds = |told: &&Told| {
        stored.get(&told.lease.id).is_some_and(|lease| {
            lease.spec == told.lease.spec
                && lease.expires_at == told.lease.expires_at
                && lease.ended_at == told.lease.ended_at
                && lease.generation == told.lease.generation
        })
    };
    told.iter().filter(|told| !holds(told)).map(|told| told.lease.id.clone()).collect()
}

/// Leases of which no client was told, or more than one.
fn doubled(stored: &BTreeMap<String, Lease>, told: &[Told]) -> Vec<String> {
    let mut untold: BTreeSet<_> = stored.keys().cloned().collect();
    let mut doubled: Vec<_> =
        told.iter().map(|told| told.lease.id.clone()).filter(|id| !untold.remove(id)).collect();
    doubled.extend(untold);
    doubled
}

/// Objects of the namespace that belong to no lease that lives.
fn orphans(world: &World, told: &[Told]) -> Vec<String> {
    let living: Vec<_> =
        told.iter().filter(|told| !told.is_released).map(|told| format!("tms-{}", told.lease.id)).collect();
    let kinds = "deployments,services,hpa,pdb,podmonitors,prometheusrules,replicasets,pods";
    let list = world.kubectl(&["get", kinds]);
    let names = list["items"].as_array().unwrap().iter().map(|item| {
        format!("{} {}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap())
    });
    names.filter(|name| !living.iter().any(|lease| name.contains(lease))).collect()
}

/// Makes the requests for the leases that live once more: each returns its lease.
async fn again(leases: &mut LeaseServiceClient<Channel>, told: &[Told]) {
    for told in told.iter().filter(|told| !told.is_released) {
        let lease = acquired(leases, told.request.clone()).await.unwrap();
        assert_eq!(lease.id, told.lease.id, "{}", told.request.request_id);
    }
}
