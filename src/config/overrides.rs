//! The demo's changes to a configuration that has been read.
//!
//! Knows how to change a [`Config`] without breaking what the checks promise of it.
//! Must not know: the command line, or which port is free.

use std::net::SocketAddr;

use super::{Config, Redis, Server, check};

impl Config {
    /// Listens at this one address instead.
    pub fn with_listen(mut self, listen: SocketAddr) -> Self {
        self.listen = vec![listen.into()];
        self
    }

    /// The admin listener at this address instead, or off.
    ///
    /// # Errors
    /// A plain sentence where the address is not loopback and there is no token, or where the
    /// public listener has it.
    pub fn with_admin(mut self, admin: Option<SocketAddr>) -> Result<Self, String> {
        if let Some(why) = admin.and_then(|a| check::admin_refused(a, self.admin_token.is_some())) {
            return Err(why.to_owned());
        }
        if admin.is_some_and(|a| check::taken(a, &self.listen)) {
            return Err("the public listener has this address already".to_owned());
        }
        self.admin = admin;
        Ok(self)
    }

    /// This Redis instead, or none.
    ///
    /// # Errors
    /// A plain sentence where it is not a Redis URL.
    pub fn with_redis(mut self, redis: Option<&str>) -> Result<Self, String> {
        self.cache.redis = redis.map(Redis::from_url).transpose()?;
        Ok(self)
    }

    /// These servers instead for the upstream of this name.
    ///
    /// # Errors
    /// A plain sentence where there is no such upstream or no server.
    pub fn with_servers(mut self, name: &str, servers: Vec<Server>) -> Result<Self, String> {
        if servers.is_empty() {
            return Err("an upstream has at least one server".to_owned());
        }
        let upstream = self.upstreams.iter_mut().find(|u| u.name == name);
        let upstream = upstream.ok_or_else(|| format!("there is no upstream `{name}`"))?;
        upstream.servers = servers;
        Ok(self)
    }
}
