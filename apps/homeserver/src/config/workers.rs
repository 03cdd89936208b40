//! `[workers]`: one homeserver as several processes.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::document::found;
use super::section::section;
use super::values::{ConfigValue, WebAddress};

/// How another process of the deployment is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Instance {
    /// Its internal listener.
    pub url: WebAddress,
}

impl ConfigValue for Instance {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        const EXPECTED: &str = "expected `url = \"http://127.0.0.1:8081\"` and nothing else";
        let Some(table) = value.as_table() else {
            return Err(format!("found {}, {EXPECTED}", found(value)));
        };
        if let Some((key, _)) = table.iter().find(|(key, _)| key.get_ref() != "url") {
            return Err(format!("found the key `{}`, {EXPECTED}", key.get_ref()));
        }
        let url = table.get("url").ok_or_else(|| format!("found no `url`, {EXPECTED}"))?;
        Ok(Self { url: WebAddress::read(url.get_ref())? })
    }

    fn write(&self) -> String {
        format!("{{ url = {} }}", self.url.write())
    }
}

section! {
    /// One homeserver as several processes, each started with `homeserver worker --config FILE`.
    Workers {
        /// What this process is called.
        instance_name: String = "main".to_owned();
        /// Every process's internal listener.
        instances: BTreeMap<String, Instance> = BTreeMap::new(), example "{ sync1 = { url = \"http://127.0.0.1:8081\" } }";
        /// Which processes write a stream: events, receipts, typing, to_device and so on.
        stream_writers: BTreeMap<String, Vec<String>> = BTreeMap::new(), example "{ events = [\"main\"] }";
        /// The processes that send to other servers; empty: the main one.
        federation_senders: Vec<String> = Vec::new(), example "[\"sender1\"]";
        /// The process that keeps media.
        media: String = "main".to_owned();
        /// The process that does the housekeeping.
        background: String = "main".to_owned();
    }
}
