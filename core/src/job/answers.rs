//! Answers that were given to calls. A host that gets a new parent sends its open calls again, since they, or the answers, may
//! be lost: a call that was heard before is answered as it was, and not carried out again.

use std::collections::{BTreeMap, VecDeque};

use muster_protocol::ProcId;
use muster_protocol::limits::KEPT_ANSWERS_MAX;
use muster_protocol::message::Answer;

/// What the root knows of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// It has never been heard.
    No,
    /// It was answered by this.
    Answered(Answer),
    /// It was answered so long ago that the process has asked other things since.
    Stale,
}

/// See the module above.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Per process, numbers of calls and their answers in ascending order.
    given: BTreeMap<ProcId, VecDeque<(u64, Answer)>>,
}

impl Answers {
    pub(super) fn known(&self, proc: ProcId, token: u64) -> Known {
        let Some(given) = self.given.get(&proc) else { return Known::No };
        match given.iter().find(|(number, _)| *number == token) {
            Some((_, answer)) => Known::Answered(answer.clone()),
            None if given.len() == KEPT_ANSWERS_MAX && given.front().is_some_and(|(oldest, _)| token < *oldest) => {
                Known::Stale
            }
            None => Known::No,
        }
    }

    pub(super) fn keep(&mut self, proc: ProcId, token: u64, answer: Answer) {
        let given = self.given.entry(proc).or_default();
        let at = given.partition_point(|(number, _)| *number < token);
        given.insert(at, (token, answer));
        if given.len() > KEPT_ANSWERS_MAX {
            given.pop_front();
        }
    }

    /// A process that has ended asks nothing any more.
    pub(super) fn forget(&mut self, proc: ProcId) {
        self.given.remove(&proc);
    }

    #[cfg(test)]
    pub(super) fn remembers(&self, proc: ProcId) -> bool {
        self.given.contains_key(&proc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_answers_are_kept_for_each_process_until_it_ends() {
        let mut answers = Answers::default();
        for token in 0..KEPT_ANSWERS_MAX as u64 + 12 {
            assert_eq!(answers.known(ProcId(1), token), Known::No);
            answers.keep(ProcId(1), token, Answer::Denied { why: token.to_string() });
        }
        assert_eq!(answers.known(ProcId(1), 19), Known::Answered(Answer::Denied { why: "19".into() }));
        assert_eq!(answers.known(ProcId(1), 12), Known::Answered(Answer::Denied { why: "12".into() }));
        assert_eq!(answers.known(ProcId(1), 11), Known::Stale);
        assert_eq!(answers.known(ProcId(2), 11), Known::No);
        assert_eq!(answers.given[&ProcId(1)].len(), KEPT_ANSWERS_MAX);
        answers.forget(ProcId(1));
        assert!(answers.given.is_empty());
    }
}
