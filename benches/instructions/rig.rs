//! The whole proxy on this thread, and a client and nodes on threads of their own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use pgweir::config::{Address, Config, Sources};
use pgweir::proxy::Proxy;
use pgweir::wire::startup::put_startup;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::node;
use crate::transactions::Transaction;

/// Transactions after which a proxy is looked at whether it is warm.
const WARM: usize = 50;

/// A proxy that has served its client before.
pub struct Rig {
    runtime: Runtime,
    client: mpsc::SyncSender<(usize, oneshot::Sender<()>)>,
    proxy: Proxy,
}

impl Rig {
    /// A proxy before this many standbys and their primary, and a client that repeats a transaction, after another that is
    /// run once.
    pub fn warm(standbys: usize, before: Option<Transaction>, transaction: Transaction) -> Rig {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let config = config(standbys);
        let proxy = runtime.block_on(async {
            let proxy = Proxy::start(config, None).await.expect("a free port");
            proxy.ready().await;
            proxy
        });
        let Address::Tcp(host, port) = &proxy.addresses()[0] else {
            unreachable!("the configuration says TCP");
        };
        let (client, orders) = mpsc::sync_channel(1);
        let address = (host.clone(), *port);
        thread::spawn(move || {
            let mut client = Client::connect(address).expect("a login");
            if let Some(before) = before {
                client.run(&before).expect("answers");
            }
            // The rig is gone when there are no orders any more.
            while let Ok::<(usize, oneshot::Sender<()>), _>((times, done)) = orders.recv() {
                for _ in 0..times {
                    client.run(&transaction).expect("answers");
                }
                done.send(()).expect("the rig waits");
            }
        });
        let rig = Rig {
            runtime,
            client,
            proxy,
        };
        rig.warm_up();
        rig
    }

    /// Until the catalog is known, and each node that is read has a connection with all that it needs.
    fn warm_up(&self) {
        while self.metric("pgweir_catalog_loads_total") == 0 {
            self.run(WARM);
        }
        node::hush();
        self.run(2 * WARM);
    }

    /// A series without labels.
    fn metric(&self, name: &str) -> u64 {
        let address = self
            .proxy
            .http_address()
            .expect("the configuration says so");
        let mut stream = TcpStream::connect(address).expect("it answers HTTP");
        let request = b"GET /metrics HTTP/1.1\r\nHost: pgweir\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("it reads HTTP");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("it answers HTTP");
        let mut series = page.lines().filter_map(|line| line.rsplit_once(' '));
        let found = series.find(|(series, _)| *series == name);
        let value = found.and_then(|(_, value)| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    /// Has the client run so many transactions, and the proxy serve it.
    pub fn run(&self, times: usize) {
        let (done, is_done) = oneshot::channel();
        self.client.send((times, done)).expect("the client lives");
        self.runtime.block_on(is_done).expect("the client lives");
    }
}

/// The configuration of a proxy whose work is its clients' only, as far as that can be had.
fn config(standbys: usize) -> Config {
    let nodes: Vec<String> = (0..=standbys)
        .map(|n| {
            let address = node::start(n > 0).expect("a free port");
            format!("{{ name = \"pg{n}\", address = \"{address}\" }}")
        })
        .collect();
    let text = format!(
        "listener = [{{ address = \"127.0.0.1:0\", route = \"split\" }}]\n\
         auth.method = \"trust\"\n\
         admin.http = \"127.0.0.1:0\"\n\
         [cluster.main]\n\
         nodes = [{}]\n\
         [cluster.main.monitor]\n\
         user = \"pgweir\"\n\
         interval = \"20ms\"\n\
         timeout = \"1min\"\n\
         [cluster.main.reads]\n\
         max_lag = \"1h\"\n\
         [database.\"*\"]\n",
        nodes.join(", ")
    );
    match Config::parse(&text, "proxy.toml", &Nothing) {
        Ok(config) => config,
        Err(faults) => panic!("{faults}"),
    }
}

/// Neither files nor environment.
struct Nothing;

impl Sources for Nothing {
    fn read(&self, _: &str) -> Result<String, String> {
        Err("there are no files".to_owned())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Client {
    fn connect(address: (String, u16)) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            answer: Vec::new(),
        };
        let mut startup = Vec::new();
        put_startup(&[("user", "bench"), ("database", "bench")], &mut startup);
        client.ask(&startup)?;
        Ok(client)
    }

    fn run(&mut self, transaction: &Transaction) -> io::Result<()> {
        transaction
            .0
            .iter()
            .try_for_each(|(unit, _)| self.ask(unit))
    }

    /// Sends something, and reads up to its ReadyForQuery.
    fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)?;
        self.answer.clear();
        let mut chunk = [0; 4096];
        while !self.answer.ends_with(b"I") && !self.answer.ends_with(b"T") {
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.answer.extend_from_slice(&chunk[..n]);
        }
        Ok(())
    }
}
