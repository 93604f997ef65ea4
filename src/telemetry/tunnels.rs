//! Connections that have left HTTP: how many are open, and how others ended.
//!
//! Must not know: what moves through them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelEnd {
    /// Both sides were done, or either had gone.
    Closed,
    /// Nothing moved for as long as `limits.tunnel_idle`.
    Idle,
    /// Larder stopped.
    Stopped,
}

impl TunnelEnd {
    /// Every end, for metrics and documentation.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Idle, Self::Stopped];

    /// The word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }
}

/// Those that are open, and how often others ended in which way.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: AtomicU64,
    ended: [AtomicU64; TunnelEnd::ALL.len()],
}

/// One that is open. Dropped without a word, it was closed.
#[derive(Debug)]
pub struct OpenTunnel {
    tunnels: Arc<Tunnels>,
    end: TunnelEnd,
}

impl Tunnels {
    /// Counts one for as long as the value lives.
    pub fn open(self: &Arc<Self>) -> OpenTunnel {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenTunnel { tunnels: Arc::clone(self), end: TunnelEnd::Closed }
    }

    /// How many are open. Whoever finds one less finds all that it has given up before.
    pub fn count(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// How many have ended, in the order of [`TunnelEnd::ALL`].
    pub fn ended(&self) -> [u64; TunnelEnd::ALL.len()] {
        self.ended.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl OpenTunnel {
    /// Says how it ended.
    pub fn end(mut self, end: TunnelEnd) {
        self.end = end;
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.tunnels.open.fetch_sub(1, Ordering::Release);
        if let Some(count) = self.tunnels.ended.get(self.end as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_open_until_it_is_dropped_and_then_has_ended_in_one_way() {
        let tunnels = Arc::new(Tunnels::default());
        let open: Vec<_> = (0..4).map(|_| tunnels.open()).collect();
        assert_eq!((tunnels.count(), tunnels.ended()), (4, [0, 0, 0]));
        let ends = [Some(TunnelEnd::Idle), Some(TunnelEnd::Stopped), Some(TunnelEnd::Closed), None];
        for (tunnel, end) in open.into_iter().zip(ends) {
            match end {
                Some(end) => tunnel.end(end),
                None => drop(tunnel),
            }
        }
        assert_eq!((tunnels.count(), tunnels.ended()), (0, [2, 1, 1]));
    }
}
