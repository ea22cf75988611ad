//! The line against a model of it, and pools with real tasks before a node that only says hello.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread;

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::line::{Fitness, Key, Turn};
use super::*;
use crate::config::Address;
use crate::net::TcpOptions;

// ── the line ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Counts how often a client has been woken.
#[derive(Debug, Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection of the model: whether it works is told when somebody is to have it.
type Connection = u32;

/// A client of the line.
struct Client {
    key: Key,
    number: usize,
    since: Instant,
    bell: Arc<Bell>,
    /// The bell when it was last seen to.
    heard: usize,
    /// What it does between two looks at the line.
    doing: Doing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Waiting,
    Looking,
    Asking,
    Connecting,
}

const DEADLINE: Duration = Duration::from_secs(10);
const NOTICE: Duration = Duration::from_secs(5);
const RESERVE_AFTER: Duration = Duration::from_secs(2);

/// A line and everybody around it.
struct World {
    line: Line<Connection>,
    alarms: Alarms,
    size: usize,
    reserve: usize,
    now: Instant,
    clients: VecDeque<Client>,
    /// Connections in use.
    used: Vec<Connection>,
    connections: u32,
    /// Clients that have come.
    came: usize,
    sweeping: Option<Instant>,
}

impl World {
    fn new(size: usize, reserve: usize) -> World {
        World {
            line: Line::new(size),
            alarms: Alarms::new(NOTICE, DEADLINE, reserve, RESERVE_AFTER),
            size,
            reserve,
            now: Instant::now(),
            clients: VecDeque::new(),
            used: Vec::new(),
            connections: 0,
            came: 0,
            sweeping: None,
        }
    }

    fn come(&mut self) -> usize {
        let number = self.came;
        self.came += 1;
        let key = self.line.join(self.now);
        self.clients.push_back(Client {
            key,
            number,
            since: self.now,
            bell: Arc::default(),
            heard: 0,
            doing: Doing::Waiting,
        });
        self.see(self.clients.len() - 1, Fitness::Good);
        number
    }

    /// A client looks at the line, and does what it says. Connections are in this state.
    fn see(&mut self, at: usize, fitness: Fitness) {
        let mut fitness = Some(fitness);
        loop {
            let client = &mut self.clients[at];
            client.heard = client.bell.count();
            let waker = Waker::from(client.bell.clone());
            let check = |_: &Connection| fitness.take().unwrap_or(Fitness::Good);
            let turn = self.line.turn(client.key, &waker, &self.alarms, check);
            if self.line.starts_sweeping() {
                assert_eq!(self.sweeping, None, "one task sweeps");
                self.sweeping = Some(self.now);
            }
            match turn {
                Turn::Take(connection) => {
                    self.clients.remove(at);
                    self.used.push(connection);
                    return;
                }
                Turn::Close(_) => client.doing = Doing::Waiting,
                Turn::Ask(_) => {
                    client.doing = Doing::Asking;
                    return;
                }
                Turn::Look => {
                    if client.doing == Doing::Waiting {
                        client.doing = Doing::Looking;
                    }
                    return;
                }
                Turn::Wait => return assert_eq!(client.doing, Doing::Waiting),
                Turn::Over => {
                    assert!(self.now - client.since >= DEADLINE);
                    return self.leave(at);
                }
            }
        }
    }

    fn leave(&mut self, at: usize) {
        let client = self.clients.remove(at).expect("a client");
        let before = self.awake();
        let after = self.line.leave(client.key, |_| false);
        let _closed = after.wake();
        self.check_order(&before);
    }

    fn give_back(&mut self, at: usize, is_fit: bool, gives_way: bool) {
        let connection = self.used.swap_remove(at);
        let before = self.awake();
        let after = self
            .line
            .give_back(is_fit.then_some(connection), |_| gives_way);
        let _closed = after.wake();
        self.check_order(&before);
    }

    /// Who has been woken and has not come yet.
    fn awake(&self) -> Vec<usize> {
        let awake = |client: &&Client| client.bell.count() > client.heard;
        let awake = self.clients.iter().filter(awake);
        awake.map(|client| client.number).collect()
    }

    /// Of those who sleep in the queue nobody has been passed by, by those who are awake now.
    fn check_order(&self, before: &[usize]) {
        let awake = self.awake();
        let is_new = |number: &&usize| !before.contains(number);
        let last = awake.iter().filter(is_new).max();
        let asleep = self
            .clients
            .iter()
            .filter(|client| client.doing == Doing::Waiting && client.bell.count() == client.heard);
        let first = asleep.map(|client| client.number).min();
        if let Some((last, first)) = last.zip(first) {
            assert!(*last < first, "{last} has been woken before {first}");
        }
    }

    /// A client that looks opens a connection, which goes well or not.
    fn connect(&mut self, at: usize, fails: bool) {
        let client = &mut self.clients[at];
        match client.doing {
            Doing::Looking if self.line.connects(client.key) => client.doing = Doing::Connecting,
            Doing::Looking => self.see(at, Fitness::Good),
            Doing::Connecting | Doing::Asking if fails => {
                client.doing = Doing::Waiting;
                self.line.looks_again(client.key);
                self.see(at, Fitness::Good);
            }
            Doing::Connecting | Doing::Asking => {
                self.line.served(client.key);
                self.clients.remove(at);
                self.connections += 1;
                self.used.push(self.connections);
            }
            Doing::Waiting => {}
        }
    }

    /// Time passes, and who has been woken looks.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        if let Some(next) = self.sweeping.filter(|next| *next <= self.now) {
            let (again, wake) = self.line.sweep(self.now, &self.alarms);
            assert!(again.is_none_or(|again| again > next));
            self.sweeping = again;
            wake.into_iter().for_each(Waker::wake);
        }
    }

    /// Everybody who has been woken looks; each as often as it was woken.
    fn settle(&mut self) {
        while let Some(at) = self
            .clients
            .iter()
            .position(|client| client.bell.count() > client.heard)
        {
            self.see(at, Fitness::Good);
        }
    }

    fn check(&mut self) {
        let given_or_admitted: usize = self
            .clients
            .iter()
            .filter(|client| client.bell.count() > client.heard || client.doing != Doing::Waiting)
            .count();
        let most = self.size + self.line.lent();
        assert!(self.line.lent() <= self.reserve);
        assert!(self.used.len() + self.line.free() <= most);
        assert!(self.line.shelf().len() <= self.line.free());
        assert!(self.line.waiting() <= self.clients.len());
        if given_or_admitted == 0 {
            assert_eq!(
                self.used.len() + self.line.free(),
                most,
                "every place is known of"
            );
        }
        let idle = self.line.shelf().len();
        for client in &self.clients {
            let is_awake = client.bell.count() > client.heard;
            assert!(
                is_awake
                    || client.doing == Doing::Connecting
                    || client.doing == Doing::Asking
                    || idle == 0,
                "{} waits, and {idle} are idle",
                client.number
            );
            assert!(
                is_awake || client.doing != Doing::Waiting || self.line.free() == 0,
                "{} waits, and could be admitted",
                client.number
            );
        }
        assert!(self.sweeping.is_some() || self.line.waiting() == 0);
    }
}

proptest! {
    /// Whoever comes, leaves, gives back and fails in whichever order: no place is lost, nobody sleeps while there is
    /// something for it, and who is served without having been admitted before is the one that has waited for longest.
    #[test]
    fn nobody_waits_in_vain(
        size in 1_usize..4,
        reserve in 0_usize..3,
        steps in prop::collection::vec((0_u8..12, any::<prop::sample::Index>(), 0_u64..4000), 1..120),
    ) {
        let mut world = World::new(size, reserve);
        for (step, index, ms) in steps {
            let (clients, used) = (world.clients.len(), world.used.len());
            match step {
                0..=2 => _ = world.come(),
                3 if clients > 0 => world.leave(index.index(clients)),
                4 if clients > 0 => world.see(index.index(clients), Fitness::Unfit),
                5 if clients > 0 => world.see(index.index(clients), Fitness::Doubtful),
                6 if clients > 0 => world.connect(index.index(clients), ms % 3 == 0),
                7 | 8 if used > 0 => world.give_back(index.index(used), true, false),
                9 if used > 0 => world.give_back(index.index(used), ms % 2 == 0, ms % 4 == 0),
                10 => world.pass(Duration::from_millis(ms)),
                _ => world.settle(),
            }
            world.check();
        }
        // Everything comes to an end: who wants to be served is.
        for _ in 0..1000 {
            world.settle();
            world.check();
            if world.clients.is_empty() {
                break;
            }
            let busy = world.clients.iter().position(|client| client.doing != Doing::Waiting);
            match busy {
                Some(at) => world.connect(at, false),
                None => world.give_back(0, true, false),
            }
        }
        prop_assert!(world.clients.is_empty(), "somebody has been forgotten");
        while !world.used.is_empty() {
            world.give_back(0, true, false);
        }
        prop_assert_eq!(world.line.free(), size);
        prop_assert_eq!(world.line.lent(), 0);
        // The sweeps end, and their memory goes back.
        world.pass(NOTICE * 2);
        world.pass(NOTICE * 2);
        prop_assert_eq!(world.sweeping, None);
    }
}

/// Connections for all who are admitted, so that the next have to wait.
fn full(size: usize, reserve: usize) -> World {
    let mut world = World::new(size, reserve);
    for _ in 0..size {
        world.come();
        world.connect(0, false);
        world.connect(0, false);
    }
    assert_eq!(world.used.len(), size);
    world
}

#[test]
fn what_comes_back_goes_to_who_has_waited_for_longest() {
    let mut world = full(2, 0);
    let [first, second, third] = [(); 3].map(|()| world.come());
    world.give_back(0, true, false);
    assert_eq!(world.awake(), [first], "one, and once");
    assert!(world.line.take(|_| Fitness::Good).is_none(), "no newcomer");
    let late = world.come();
    world.give_back(0, true, false);
    assert_eq!(world.awake(), [first, second]);
    world.settle();
    // The first to be in front now leaves, when it has been given one already.
    world.give_back(0, true, false);
    assert_eq!(world.awake(), [third]);
    world.leave(0);
    assert_eq!(world.awake(), [late], "it goes to the next");
    world.leave(0);
    assert_eq!(
        world.line.shelf().len(),
        1,
        "and to the shelf when nobody is left"
    );
    assert!(world.line.take(|_| Fitness::Good).is_some());
}

#[test]
fn what_is_unfit_makes_room_for_who_it_was_for() {
    let mut world = full(1, 0);
    let first = world.come();
    world.come();
    world.give_back(0, true, false);
    world.see(0, Fitness::Unfit);
    assert_eq!(world.clients[0].number, first);
    assert_eq!(world.clients[0].doing, Doing::Looking, "it opens another");
    assert_eq!(world.awake(), [] as [usize; 0], "the other one waits");
    world.connect(0, false);
    // While it connects, what comes back is not for it.
    world.connect(0, false);
    assert_eq!((world.used.len(), world.clients.len()), (1, 1));
}

#[test]
fn who_looks_is_before_who_is_queued() {
    let mut world = full(2, 0);
    world.give_back(0, false, false);
    let looking = world.come();
    assert_eq!(world.clients[0].doing, Doing::Looking);
    let queued = world.come();
    assert_eq!(world.clients[1].doing, Doing::Waiting);
    assert!(!world.line.admit_aside(), "nobody comes before them");
    world.give_back(0, true, false);
    assert_eq!(
        world.awake(),
        [looking, queued],
        "one has it, and its place is the other's"
    );
    world.settle();
    assert_eq!((world.used.len(), world.clients.len()), (1, 1));
    assert_eq!(world.clients[0].number, queued);
    assert_eq!(world.clients[0].doing, Doing::Looking);
    // What another pool needs more is not handed on, but its place is free.
    let last = world.come();
    world.give_back(0, true, true);
    assert_eq!(world.awake(), [last]);
    assert_eq!(world.line.shelf().len(), 0);
}

#[test]
fn long_waits_are_noticed() {
    let mut world = full(1, 1);
    let first = world.come();
    world.pass(Duration::from_secs(1));
    let second = world.come();
    world.pass(RESERVE_AFTER - Duration::from_secs(1));
    assert_eq!(world.awake(), [first], "the reserve is for the first");
    world.settle();
    assert_eq!(world.clients[0].doing, Doing::Looking);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.line.lent(), 1, "the reserve has an end");
    assert_eq!(world.awake(), [] as [usize; 0]);
    let is_long =
        |world: &World, at: usize| world.line.is_long(world.clients[at].key, &world.alarms);
    world.pass(NOTICE - Duration::from_secs(3));
    assert!(is_long(&world, 0) && !is_long(&world, 1));
    assert_eq!(world.awake(), [first]);
    world.settle();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.awake(), [second]);
    world.settle();
    // Connecting is not counted.
    world.connect(0, false);
    assert_eq!(world.clients[0].doing, Doing::Connecting);
    world.pass(DEADLINE);
    world.settle();
    assert_eq!(world.clients.len(), 1, "the other one has left");
    assert_eq!(world.clients[0].number, first);
    world.connect(0, true);
    assert_eq!(
        world.clients.len(),
        0,
        "now it is too late for the first, too"
    );
    assert_eq!(world.line.lent(), 0);
}

// ── pools ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A node that lets everybody in and says nothing more. It runs as long as the process.
fn node() -> io::Result<Address> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let serve = |mut stream: std::net::TcpStream| -> io::Result<()> {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - length.len()];
        stream.read_exact(&mut startup)?;
        stream.write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I")?;
        // Until the pool closes it.
        stream.read_to_end(&mut startup).map(|_| ())
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(Address::Tcp("127.0.0.1".to_owned(), port))
}

fn counter(name: &str) -> IntCounter {
    IntCounter::new(name, "for the test").expect("a valid name")
}

fn limits(size: usize) -> Limits {
    let hour = Duration::from_secs(3600);
    Limits {
        size,
        min: 0,
        reserve: 0,
        reserve_after: hour,
        max_prepared: 0,
        wait: hour,
        idle: hour,
        lifetime: hour,
        check: hour,
    }
}

fn pool(limits: Limits) -> Pool {
    let endpoint = Endpoint {
        address: node().expect("a socket"),
        tcp: TcpOptions {
            keepalive: Duration::from_secs(60),
            user_timeout: None,
        },
        timeout: Duration::from_secs(30),
        timeouts: counter("timeouts"),
        max_prepared: 0,
    };
    let owner = Owner {
        name: "d",
        database: "d",
        user: "u",
        credentials: Arc::new(Credentials::new(None)),
        told: Arc::default(),
    };
    let counts = NodeCounts {
        outstanding: Arc::default(),
        ledger: Arc::new(Ledger::new(counter("evictions"))),
        connects: counter("connects"),
        failed_connects: counter("failed"),
    };
    Pool::new(endpoint, owner, limits, Arc::default(), counts, &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_share_few_connections() {
    const SIZE: usize = 3;
    let pool = pool(limits(SIZE));
    let (in_use, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for number in 0..60_u64 {
        let (pool, in_use, most) = (pool.clone(), in_use.clone(), most.clone());
        tasks.spawn(async move {
            let mut served = 0;
            for turn in 0..200 {
                // Some leave while they wait: in the queue, or when they have just been given a connection.
                let waits = async {
                    match pool.try_checkout(Instant::now()) {
                        Some(server) => Ok(server),
                        None => pool.checkout(Patience::Wait).await,
                    }
                };
                let patience = match (number + turn) % 5 {
                    0 => Duration::from_micros(turn * 7),
                    _ => Duration::from_secs(60),
                };
                let Ok(server) = tokio::time::timeout(patience, waits).await else {
                    assert!(patience < Duration::from_secs(60), "nobody is forgotten");
                    continue;
                };
                let server = server.expect("a connection");
                let now = in_use.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                tokio::task::yield_now().await;
                in_use.fetch_sub(1, Ordering::SeqCst);
                served += 1;
                match (number + turn) % 50 {
                    1 => drop(server.into_closed()),
                    _ => drop(server),
                }
            }
            served
        });
    }
    let served: Vec<usize> = tasks.join_all().await;
    assert!(served.iter().all(|served| *served >= 160), "{served:?}");
    assert_eq!(
        most.load(Ordering::SeqCst),
        SIZE,
        "all of them, and no more"
    );
    let status = pool.status();
    assert_eq!((status.waiting, status.max), (0, SIZE));
    assert_eq!(status.size, status.idle);
    assert_eq!(pool.0.line().free(), SIZE);
    assert_eq!(pool.0.outstanding.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn tasks_are_served_in_their_order() {
    let pool = pool(limits(1));
    let order = Arc::new(Mutex::new(Vec::new()));
    let held = pool.checkout(Patience::Wait).await.expect("a connection");
    let mut tasks = JoinSet::new();
    for number in 0..10 {
        let (pool, order) = (pool.clone(), order.clone());
        tasks.spawn(async move {
            let server = pool.checkout(Patience::Wait).await.expect("a connection");
            lock(&order).push(number);
            drop(server);
            // A newcomer now does not come before those who wait.
            let server = pool.checkout(Patience::Wait).await.expect("a connection");
            lock(&order).push(number + 100);
            drop(server);
        });
    }
    while pool.status().waiting < 10 {
        tokio::task::yield_now().await;
    }
    assert!(pool.try_checkout(Instant::now()).is_none());
    assert!(pool.waiting_since().is_some());
    drop(held);
    assert!(
        pool.try_checkout(Instant::now()).is_none(),
        "it is the first one's"
    );
    tasks.join_all().await;
    let expected: Vec<i32> = (0..10).chain(100..110).collect();
    assert_eq!(*lock(&order), expected);
    assert_eq!(pool.status().size, 1);
    assert!(pool.waiting_since().is_none());
}

#[tokio::test]
async fn a_wait_has_an_end_and_the_pool_goes_on() {
    let pool = pool(Limits {
        wait: Duration::from_millis(20),
        ..limits(1)
    });
    let held = pool.checkout(Patience::Wait).await.expect("a connection");
    let begun = Instant::now();
    let both = tokio::join!(
        pool.checkout(Patience::Wait),
        pool.checkout(Patience::Leave)
    );
    for result in <[_; 2]>::from(both) {
        assert!(
            matches!(result, Err(CheckoutError::Timeout(_))),
            "{result:?}"
        );
    }
    assert!(begun.elapsed() >= Duration::from_millis(20));
    assert_eq!(pool.status().waiting, 0);
    drop(held);
    assert!(pool.try_checkout(Instant::now()).is_some());
    // The task that watched has come to its end, and another begins.
    while Arc::weak_count(&pool.0) > 1 {
        tokio::task::yield_now().await;
    }
    let _held = pool.try_checkout(Instant::now()).expect("it is idle");
    let late = pool.checkout(Patience::Wait).await;
    assert!(matches!(late, Err(CheckoutError::Timeout(_))), "{late:?}");
}

#[tokio::test]
async fn a_connection_whose_time_is_up_is_replaced_for_who_waits() {
    let pool = pool(Limits {
        lifetime: Duration::ZERO,
        ..limits(1)
    });
    let held = pool.checkout(Patience::Wait).await.expect("a connection");
    let first = held.opened;
    let mut waits = std::pin::pin!(pool.checkout(Patience::Wait));
    assert!(
        futures_pending(waits.as_mut()).await,
        "there is no other connection"
    );
    drop(held);
    let next = waits.await.expect("a connection");
    assert!(next.opened > first, "another one");
    assert_eq!(pool.status().size, 1);
}

/// Polls once; whether it is still pending.
async fn futures_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}
