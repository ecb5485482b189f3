//! Questions to all hosts at once, and one word to all.

use std::rc::Rc;

use muster_core::exec::Watch;
use muster_sys::clock::boottime_ms;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Drive;
use crate::exec::lines::{Call, News, PROBE, Target};

impl Drive<'_> {
    /// A command that ends badly may have seen a host die a moment before this launcher did, as its daemons elsewhere do.
    pub(super) async fn look_for_lost(&mut self, chosen: &[usize], watch: &mut Watch) {
        let answers = self.each(|target| async move { target.answers().await }).await;
        for (host, at) in chosen.iter().enumerate() {
            if !self.states[*at].here && !answers[*at] && watch.begun(host) > 0 {
                let why = "its agent does not answer any more".to_owned();
                self.states[*at].up = false;
                self.tell_news(*at, &News::Lost { why: why.clone() });
                watch.lost(host, why, boottime_ms());
            }
        }
    }

    /// Hosts whose agents answer now: others may be as lost as the one that is known to be.
    pub(super) async fn that_answer(&mut self) -> Vec<usize> {
        let probes = self.each(|target| async move { target.answers().await }).await;
        for (state, answers) in self.states.iter_mut().zip(probes) {
            state.up = state.here || answers;
        }
        (0..self.states.len()).filter(|at| self.states[*at].up).collect()
    }

    /// Tells all agents that the command has succeeded: some end with it. Not one that does not answer is waited for for long.
    pub(super) async fn tell_agents_that_it_is_over(&self) {
        let told = self.states.iter().filter(|state| !state.here).map(|state| {
            let (told, understood) = oneshot::channel();
            let _ = state.calls.send(Call::Over(told));
            understood
        });
        let told: Vec<_> = told.collect();
        let all = async {
            for understood in told {
                let _ = understood.await;
            }
        };
        let _ = timeout(PROBE, all).await;
    }

    /// Asks all hosts something at once, in their order; of one that does not say anything the default is taken.
    pub(super) async fn each<T: Default + Clone + 'static, F: Future<Output = T> + 'static>(
        &self,
        ask: impl Fn(Rc<Target>) -> F,
    ) -> Vec<T> {
        let mut questions = JoinSet::new();
        for (at, state) in self.states.iter().enumerate().filter(|(_, state)| !state.here) {
            let question = ask(state.target.clone());
            questions.spawn_local(async move { (at, question.await) });
        }
        let mut answers = vec![T::default(); self.states.len()];
        while let Some(answer) = questions.join_next().await {
            if let Ok((at, answer)) = answer {
                answers[at] = answer;
            }
        }
        answers
    }
}
