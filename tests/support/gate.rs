//! A gate that a test opens: the way to hold an origin at a point without sleeping.
//!
//! Knows who has arrived and whether it is open. Once open it stays open.
//! Must not know: what stands behind it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::PATIENCE;

/// Shut until [`Gate::open`]; clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    arrived: usize,
}

impl Gate {
    /// A shut gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.change(|state| state.open = true);
    }

    /// Arrives and waits until it is open; false if it stayed shut for three times [`PATIENCE`].
    pub fn pass(&self) -> bool {
        self.change(|state| state.arrived += 1);
        self.until(PATIENCE * 3, |state| state.open)
    }

    /// Waits until `count` have arrived, whether or not they have passed; panics if they do not.
    pub fn wait_for_arrivals(&self, count: usize) {
        assert!(self.until(PATIENCE, |state| state.arrived >= count), "fewer than {count} reached the gate");
    }

    /// How many have arrived so far.
    pub fn arrived(&self) -> usize {
        self.0.state.lock().unwrap().arrived
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap());
        self.0.changed.notify_all();
    }

    fn until(&self, patience: Duration, met: impl Fn(&State) -> bool) -> bool {
        let state = self.0.state.lock().unwrap();
        let (state, _) = self.0.changed.wait_timeout_while(state, patience, |state| !met(state)).unwrap();
        met(&state)
    }
}
