//! Which server of an upstream is asked next.
//!
//! Knows loads and flags as plain values. Must not know: connections, clocks, or what a request is.

/// What the choice looks at, per server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Connections in use and requests that wait for one.
    pub load: usize,
    /// It could not be connected to a moment ago.
    pub aside: bool,
    /// For this very request.
    pub standing: Standing,
}

/// What a server has come to for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not been asked.
    #[default]
    Untried,
    /// A connection to it was of no use, which says little: others first.
    Doubted,
    /// It could not be connected to, or broke off: not again.
    Failed,
}

/// The server with the fewest connections in use; among equals the first from `turn` on, which the
/// caller counts up. Servers set aside are chosen only when no other is left, since asking them is
/// better than failing. `None` when all have been tried.
pub(super) fn choose(candidates: &[Candidate], turn: usize) -> Option<usize> {
    let count = candidates.len().max(1);
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.standing != Standing::Failed)
        .min_by_key(|(index, candidate)| {
            let aside = candidate.aside || candidate.standing == Standing::Doubted;
            (aside, candidate.load, (index + count - turn % count) % count)
        })
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn free(load: usize) -> Candidate {
        Candidate { load, aside: false, standing: Standing::Untried }
    }

    const fn aside(load: usize) -> Candidate {
        Candidate { load, aside: true, standing: Standing::Untried }
    }

    const fn tried(load: usize) -> Candidate {
        Candidate { load, aside: false, standing: Standing::Failed }
    }

    const fn doubted(load: usize) -> Candidate {
        Candidate { load, aside: false, standing: Standing::Doubted }
    }

    #[test]
    fn the_choice_follows_the_table() {
        let table: &[(&str, &[Candidate], usize, Option<usize>)] = &[
            ("no server", &[], 0, None),
            ("one server, whatever the turn", &[free(9)], 7, Some(0)),
            ("the fewest in use", &[free(3), free(1), free(2)], 0, Some(1)),
            ("a tie goes round: turn 0", &[free(1), free(1), free(1)], 0, Some(0)),
            ("a tie goes round: turn 1", &[free(1), free(1), free(1)], 1, Some(1)),
            ("a tie goes round: turn 5", &[free(1), free(1), free(1)], 5, Some(2)),
            ("a tie skips the busier one", &[free(1), free(2), free(1)], 1, Some(2)),
            ("one set aside is passed over", &[aside(0), free(5)], 0, Some(1)),
            ("all aside: the fewest in use", &[aside(4), aside(2)], 0, Some(1)),
            ("one tried is never asked again", &[tried(0), free(5)], 0, Some(1)),
            ("one aside is better than one tried", &[tried(0), aside(5)], 0, Some(1)),
            ("one doubted is passed over", &[doubted(0), free(5)], 0, Some(1)),
            ("one doubted is better than one tried", &[doubted(5), tried(0)], 0, Some(0)),
            ("all tried", &[tried(0), tried(0)], 1, None),
        ];
        for (name, candidates, turn, expected) in table {
            assert_eq!(choose(candidates, *turn), *expected, "{name}");
        }
    }

    #[test]
    fn any_turn_at_the_far_end_of_counting_is_fine() {
        assert!(choose(&[free(1), free(1)], usize::MAX).is_some());
    }
}
