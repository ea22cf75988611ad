//! The text of proxy.toml to a [`Config`]. Reading files is `main`'s work.

mod model;

pub use model::{
    Address, Admin, Auth, AuthMethod, Cluster, Config, Database, Limits, Log, LogFormat, LogLevel,
    Monitor, Node, Pool, PoolMode, Reads, ScramVerifier, Secret, Timeouts, UserSecret, Users,
};
