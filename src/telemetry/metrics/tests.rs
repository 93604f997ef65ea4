//! What is counted where, and what a reload keeps of it.

use super::super::finish::sample;
use super::super::outcome::Source;
use super::*;

fn finish(shard: &Shard, route: Option<usize>, source: Source) {
    sample::with(&Outcome::new(source), |r| shard.finish(&Finished { route, ..r }));
}

#[test]
fn every_answer_has_a_place_of_its_own_in_the_list() {
    let sources = Tier::ALL.into_iter().flat_map(|t| [Source::Hit(t), Source::StaleWhileRevalidate(t)]);
    let others = [
        Source::StaleIfError,
        Source::Revalidated(Miss::Stale),
        Source::Miss(Miss::Uri),
        Source::Bypass(Bypass::Off),
        Source::Local,
        Source::FailedBypass(Bypass::Method),
    ];
    let metrics = Metrics::new(&[], 1);
    for source in sources.chain(others) {
        finish(metrics.shard(0), None, source);
    }
    let total = metrics.snapshot().total();
    assert!(ANSWERS.into_iter().all(|(kind, tier)| total.answered(kind, tier) == 1));
    assert_eq!(total.requests(), ANSWERS.len() as u64);
}

#[test]
fn shards_are_summed_and_numbers_beyond_the_last_wrap_around() {
    let metrics = Metrics::new(&["a".to_owned(), "b".to_owned()], 3);
    for worker in 0..7 {
        finish(metrics.shard(worker), Some(1), Source::Hit(Tier::Memory));
    }
    assert!(std::ptr::eq(metrics.shard(0), metrics.shard(3)));
    assert!(!std::ptr::eq(metrics.shard(0), metrics.shard(1)));
    let snapshot = metrics.snapshot();
    let requests: Vec<_> = snapshot.routes.iter().map(|(name, c)| (*name, c.requests())).collect();
    assert_eq!(requests, [("a", 0), ("b", 7), ("-", 0)]);
}

#[test]
fn what_no_route_matched_and_what_names_no_known_route_is_counted_as_such() {
    let metrics = Metrics::new(&["a".to_owned()], 0);
    finish(metrics.shard(0), None, Source::Local);
    finish(metrics.shard(0), Some(9), Source::Local);
    metrics.shard(0).origin_fetch(None, Duration::from_millis(1));
    let snapshot = metrics.snapshot();
    assert_eq!(snapshot.routes[1].1.requests(), 2);
    assert_eq!(snapshot.routes[1].1.origin_fetches, 1);
}

#[test]
fn routes_of_one_name_are_shown_as_one() {
    let metrics = Metrics::new(&["a".to_owned(), "-".to_owned(), "a".to_owned()], 1);
    for route in [Some(0), Some(1), Some(2), None] {
        finish(metrics.shard(0), route, Source::Local);
    }
    let snapshot = metrics.snapshot();
    let requests: Vec<_> = snapshot.routes.iter().map(|(name, c)| (*name, c.requests())).collect();
    assert_eq!(requests, [("a", 2), ("-", 2)]);
}

#[test]
fn after_a_reload_what_stays_counts_on_and_what_went_is_still_shown() {
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let first = Metrics::new(&of(&["a", "b", "a"]), 2);
    let count = |metrics: &Metrics, route| {
        metrics.shard(1).begin();
        finish(metrics.shard(1), route, Source::Local);
    };
    let requests = |metrics: &Metrics| -> Vec<(String, u64)> {
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.process.active(snapshot.total().requests()), 0);
        snapshot.routes.iter().map(|(name, counts)| ((*name).to_owned(), counts.requests())).collect()
    };
    for route in [Some(0), Some(1), Some(1), Some(2), None] {
        count(&first, route);
    }
    let second = first.after(&of(&["b", "c"]));
    count(&second, Some(0));
    // Those that are on their way under the former configuration end as its own.
    count(&first, Some(0));
    count(&first, Some(1));
    let shown = |rows: &[(&str, u64)]| rows.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<Vec<_>>();
    assert_eq!(requests(&second), shown(&[("b", 4), ("c", 0), ("-", 1), ("a", 3)]));
    let third = second.after(&of(&["a"]));
    assert_eq!(requests(&third), shown(&[("a", 3), ("-", 1), ("b", 4), ("c", 0)]));
}

#[test]
fn however_many_names_there_were_nothing_counted_is_lost_and_few_are_kept() {
    let mut metrics = Metrics::new(&["0".to_owned()], 1);
    for nth in 1..=1000 {
        metrics.shard(0).begin();
        finish(metrics.shard(0), Some(0), Source::Local);
        metrics = metrics.after(&[nth.to_string()]);
    }
    let snapshot = metrics.snapshot();
    assert_eq!(snapshot.routes.len(), 2 + PAST_ROUTES);
    assert_eq!(snapshot.total().requests(), 1000);
    assert_eq!(snapshot.routes.last().map(|(name, _)| *name), Some("999"));
}

#[test]
fn blocks_of_different_workers_share_no_cache_line() {
    assert_eq!(align_of::<Padded<ProcessCounts<AtomicU64>>>() % 128, 0);
    assert_eq!(align_of::<Padded<RouteCounts<AtomicU64>>>() % 128, 0);
}

#[test]
fn workers_that_count_at_the_same_time_lose_nothing() {
    // One shard for each worker, which alone writes to it: see `raise`.
    let metrics = Metrics::new(&["a".to_owned()], 4);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let metrics = &metrics;
            scope.spawn(move || {
                for _ in 0..1000 {
                    metrics.shard(worker).begin();
                    finish(metrics.shard(worker), Some(0), Source::Miss(Miss::Uri));
                }
            });
        }
    });
    let snapshot = metrics.snapshot();
    assert_eq!(snapshot.total().requests(), 4000);
    assert_eq!(snapshot.process.active(4000), 0);
}
