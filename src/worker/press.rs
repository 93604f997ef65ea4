//! Makes other forms of stored bodies: once for all who ask, off the request threads.
//!
//! Knows how many may be made at once, and that a form is kept beside its body in memory. Counts what
//! it does.
//! Must not know: who reads which form, or what is said of it in a head.
//!
//! Cancellation: whoever waits may leave; what is being made is made for the others, and kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Shared;
use crate::coding;
use crate::fields::content_coding::{Coding, ContentCoding};
use crate::stored::{Copies, Copy, Form, StoredResponse};
use crate::telemetry::CodingGauges;

/// Bodies up to this size are encoded where they are asked for: less than a millisecond, about what
/// it costs to hand the work to another thread and to come back. Decoding always goes there: how
/// large the result will be, and so how long it takes, stands nowhere.
const AT_ONCE: u64 = 16 * 1024;

/// Bodies encoded while they stream, at once. Each holds about a mebibyte of tables.
const STREAMS: usize = 64;

/// The place where bodies are encoded and decoded.
#[derive(Debug)]
pub struct Press {
    making: Mutex<HashMap<Place, watch::Receiver<Option<Copy>>>>,
    threads: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    encoded: AtomicU64,
    decoded: AtomicU64,
    saved: AtomicU64,
}

/// Which form of which body: the address of its copies, which whoever is making one holds on to.
type Place = (usize, Form);

impl Press {
    /// One that has at most `threads` bodies in work at once.
    pub fn new(threads: usize) -> Self {
        Self {
            making: Mutex::default(),
            threads: Arc::new(Semaphore::new(threads.max(1))),
            streams: Arc::new(Semaphore::new(STREAMS)),
            encoded: AtomicU64::new(0),
            decoded: AtomicU64::new(0),
            saved: AtomicU64::new(0),
        }
    }

    /// Leave to encode one body while it streams, for as long as it is held; `None` where too many
    /// do so already.
    pub fn stream(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        self.encoded.fetch_add(1, Ordering::Relaxed);
        Some(permit)
    }

    /// Notes that a body of so many bytes went out as so many.
    pub fn went_out(&self, bytes: u64, encoded: u64) {
        self.saved.fetch_add(bytes.saturating_sub(encoded), Ordering::Relaxed);
    }

    /// What it has done so far.
    pub fn gauges(&self) -> CodingGauges {
        CodingGauges {
            encoded: self.encoded.load(Ordering::Relaxed),
            decoded: self.decoded.load(Ordering::Relaxed),
            saved: self.saved.load(Ordering::Relaxed),
        }
    }

    /// Whether no thread is free.
    fn is_busy(&self) -> bool {
        self.threads.available_permits() == 0
    }
}

impl Shared {
    /// The stored body in another form, of at most `bound` bytes: the copy that is kept, or one that
    /// is made now, for everyone who asks meanwhile. `None` where none can be had: too many are being
    /// made, and the stored form will do as well.
    pub async fn copy(
        self: &Arc<Self>,
        stored: &Arc<StoredResponse>,
        form: Form,
        bound: u64,
    ) -> Option<Copy> {
        if let Some(copy) = stored.copy(form) {
            return Some(copy.clone());
        }
        let mut told = self.making(stored, form, bound)?;
        let made = told.wait_for(Option::is_some).await.ok()?;
        made.clone()
    }

    /// Joins those who wait for a form, or has it made.
    fn making(
        self: &Arc<Self>,
        stored: &Arc<StoredResponse>,
        form: Form,
        bound: u64,
    ) -> Option<watch::Receiver<Option<Copy>>> {
        let place = (Arc::as_ptr(stored.copies()).addr(), form);
        let at_once = matches!(form, Form::Encoded(_)) && stored.content.length() <= AT_ONCE;
        let mut making = self.press.making.lock();
        if let Some(told) = making.get(&place) {
            return Some(told.clone());
        }
        // What is decoded is waited for: its client cannot read what is stored.
        if !at_once && form != Form::Decoded && self.press.is_busy() {
            return None;
        }
        let (tell, told) = watch::channel(None);
        making.insert(place, told.clone());
        drop(making);
        let bound = usize::try_from(bound).unwrap_or(usize::MAX);
        let work = Work { shared: Arc::clone(self), stored: Arc::clone(stored), form, bound, place, tell };
        if at_once {
            work.run();
        } else {
            let threads = Arc::clone(&self.press.threads);
            tokio::spawn(async move {
                let Ok(permit) = threads.acquire_owned().await else { return };
                let done = tokio::task::spawn_blocking(move || {
                    work.run();
                    drop(permit);
                });
                let _panics_are_logged_by_the_runtime = done.await;
            });
        }
        Some(told)
    }
}

/// One form to be made. Dropped undone, those who wait learn that there will be none.
struct Work {
    shared: Arc<Shared>,
    stored: Arc<StoredResponse>,
    form: Form,
    bound: usize,
    place: Place,
    tell: watch::Sender<Option<Copy>>,
}

impl Work {
    fn run(self) {
        let copies: &Arc<Copies> = self.stored.copies();
        // Between somebody's look and our taking the place, another may have made it.
        let copy = copies.get(self.form).cloned().unwrap_or_else(|| {
            let copy = self.make();
            self.shared.memory.attach(&self.stored.key, copies, self.form, copy.clone());
            copy
        });
        self.tell.send_replace(Some(copy));
    }

    fn make(&self) -> Copy {
        let Some(body) = self.stored.content.whole() else { return Copy::None };
        let press = &self.shared.press;
        match (self.form, self.stored.facts.coding) {
            (Form::Encoded(coding), ContentCoding::Identity) => {
                press.encoded.fetch_add(1, Ordering::Relaxed);
                worthwhile(body, encoded(coding, body))
            }
            (Form::Decoded, ContentCoding::One(coding)) => {
                press.decoded.fetch_add(1, Ordering::Relaxed);
                coding::decode(coding, body, self.bound).map_or(Copy::None, Copy::Made)
            }
            _ => Copy::None,
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.shared.press.making.lock().remove(&self.place);
    }
}

fn encoded(coding: Coding, body: &[u8]) -> Option<Bytes> {
    coding::encode(coding, body).ok()
}

/// An encoded form that is no smaller is none.
pub fn worthwhile(body: &[u8], encoded: Option<Bytes>) -> Copy {
    encoded.filter(|encoded| encoded.len() < body.len()).map_or(Copy::None, Copy::Made)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::store::Class;
    use crate::stored::Born;
    use crate::stored::samples::{key, plain, stored};
    use crate::worker::tests::worker;

    const ZSTD: Form = Form::Encoded(Coding::Zstd);
    const BOUND: u64 = 1 << 20;

    async fn shared() -> Arc<Shared> {
        worker("", "").await.shared
    }

    fn keep(shared: &Shared, response: &Arc<StoredResponse>) {
        assert!(shared.memory.keep(Arc::clone(response), Class::Plain, &shared.purges));
    }

    /// A body that is not encoded on the request's own thread, and one that is.
    fn bodies() -> [Arc<StoredResponse>; 2] {
        [200_000, 2_000].map(|size| plain(&format!("/{size}"), &vec![b'x'; size], Born::Here(0)))
    }

    fn coded(bytes: &[u8]) -> Arc<StoredResponse> {
        let fields = [("cache-control", "max-age=60"), ("content-encoding", "gzip")];
        stored(&key("/coded"), &[], &fields, bytes, Born::Here(0))
    }

    #[tokio::test]
    async fn a_copy_is_made_once_and_kept_beside_its_body() {
        let shared = shared().await;
        for response in bodies() {
            keep(&shared, &response);
            let (one, two) =
                tokio::join!(shared.copy(&response, ZSTD, BOUND), shared.copy(&response, ZSTD, BOUND));
            assert!(matches!(one, Some(Copy::Made(_))) && one == two);
            assert_eq!(response.copy(ZSTD).cloned(), one);
        }
        assert_eq!(shared.press.gauges().encoded, 2);
        // The thread that made the last one tells before it tidies up.
        let tidy = async {
            while !shared.press.making.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), tidy).await.unwrap();
    }

    #[tokio::test]
    async fn who_leaves_does_not_stop_it() {
        let shared = shared().await;
        let [large, _] = bodies();
        keep(&shared, &large);
        {
            let mut waiting = pin!(shared.copy(&large, ZSTD, BOUND));
            let polled = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Pending);
        }
        assert!(matches!(shared.copy(&large, ZSTD, BOUND).await, Some(Copy::Made(_))));
        assert_eq!(shared.press.gauges().encoded, 1);
    }

    #[tokio::test]
    async fn while_all_threads_are_busy_what_must_be_decoded_waits_and_the_rest_stays_as_it_is() {
        let shared = shared().await;
        let [large, small] = bodies();
        let coded = coded(&coding::encode(Coding::Gzip, b"body").unwrap());
        let taken = Arc::clone(&shared.press.threads).acquire_owned().await.unwrap();
        assert_eq!(shared.copy(&large, ZSTD, BOUND).await, None);
        assert!(matches!(shared.copy(&small, ZSTD, BOUND).await, Some(Copy::Made(_))), "at once");
        let mut decoded = pin!(shared.copy(&coded, Form::Decoded, BOUND));
        assert!(decoded.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(taken);
        assert_eq!(decoded.await, Some(Copy::Made(Bytes::from_static(b"body"))));
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_told_and_remembered() {
        let shared = shared().await;
        let bomb = coded(&coding::encode(Coding::Gzip, &[0; 5_000]).unwrap());
        let tiny = plain("/tiny", b"x", Born::Here(0));
        for (response, form) in [(&bomb, Form::Decoded), (&tiny, ZSTD), (&bomb, ZSTD), (&tiny, Form::Decoded)]
        {
            keep(&shared, response);
            assert_eq!(shared.copy(response, form, 4_999).await, Some(Copy::None), "{form:?}");
            assert_eq!(response.copy(form), Some(&Copy::None));
        }
    }

    #[tokio::test]
    async fn a_copy_of_what_is_not_stored_is_made_and_not_kept() {
        let shared = shared().await;
        let [large, _] = bodies();
        assert!(matches!(shared.copy(&large, ZSTD, BOUND).await, Some(Copy::Made(_))));
        assert_eq!(large.copy(ZSTD), None);
    }
}
