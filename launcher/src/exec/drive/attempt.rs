//! One attempt, as a loop: news of lines, visitors at the desk, signals, the command's end and time go in; what the watch decides
//! is done.

use std::time::Duration;

use muster_core::exec::{Act, End, Watch};
use muster_core::hosts::HostList;
use muster_protocol::event::Event;
use muster_sys::clock::boottime_ms;
use muster_sys::{reap, signals};
use tokio::time::sleep;

use super::Drive;
use crate::exec::command::Running;
use crate::exec::desk::Visitor;
use crate::exec::find::find_host;
use crate::exec::lines::{self, Call, News};
use crate::report;
use crate::run::signal_source::Asked;

/// Time between two looks for what an ended command has left.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);
/// Looks after which what is left is left.
const SWEEPS_MAX: u32 = 400;

struct Attempt<'a> {
    chosen: &'a [usize],
    watch: Watch,
    running: Option<Running>,
    over: bool,
}

impl Attempt<'_> {
    fn signal(&self, signal: i32) {
        if let Some(running) = &self.running {
            running.signal(signal);
        }
    }
}

impl Drive<'_> {
    /// One attempt, from connecting to the last process's end.
    pub(super) async fn attempt(&mut self, hosts: &HostList, chosen: &[usize]) -> anyhow::Result<Watch> {
        self.workplace.write_hosts(hosts)?;
        let names = hosts.hosts().iter().map(|h| h.name.clone()).collect();
        let mut watch = Watch::new(names, self.family.daemons_end_well(), self.options.grace_ms);
        if let Some(limit_ms) = self.options.timeout_ms {
            watch.limit(self.started_ms, limit_ms);
        }
        let connect_by_ms = boottime_ms().saturating_add(self.options.connect_timeout_ms);
        let mut attempt = Attempt { chosen, watch, running: None, over: false };
        for (i, at) in chosen.iter().enumerate() {
            if self.states[*at].up {
                self.tell_news(*at, &News::Ready(Box::default()));
                let acts = attempt.watch.ready(i);
                self.carry_out(acts, &mut attempt, hosts);
            }
        }
        while !attempt.over {
            let due_ms = self.due_ms(&attempt.watch, connect_by_ms);
            let running = attempt.running.as_ref();
            let acts = tokio::select! {
                biased;
                asked = self.signals.next() => self.asked(asked, &mut attempt).await,
                end = ended(running) => {
                    attempt.running = None;
                    // What has happened before its end may be the reason for it.
                    while let Ok((at, news)) = self.news.try_recv() {
                        self.hear(at, news, chosen, &mut attempt.watch);
                    }
                    // Where one is known to be lost already, that is the reason.
                    if end != End::Exited(0) && chosen.iter().all(|at| self.states[*at].up) {
                        self.look_for_lost(chosen, &mut attempt.watch).await;
                    }
                    attempt.watch.command_ended(end)
                }
                Some((at, news)) = self.news.recv() => self.hear(at, news, chosen, &mut attempt.watch),
                Some(visitor) = self.visitors.recv() => {
                    self.receive(visitor);
                    Vec::new()
                }
                () = wait_until(due_ms) => self.time(connect_by_ms, &mut attempt.watch),
            };
            self.carry_out(acts, &mut attempt, hosts);
        }
        self.clear().await;
        Ok(attempt.watch)
    }

    fn due_ms(&self, watch: &Watch, connect_by_ms: u64) -> Option<u64> {
        let connecting = watch.connecting();
        let progress = self.terminal.next_due_ms().map(|at| at + self.started_ms);
        let of_connecting = [Some(connect_by_ms), progress].into_iter().flatten().filter(|_| connecting);
        of_connecting.chain(watch.next_due_ms()).min()
    }

    fn time(&mut self, connect_by_ms: u64, watch: &mut Watch) -> Vec<Act> {
        let now_ms = boottime_ms();
        let mut acts = watch.tick(now_ms);
        if now_ms >= connect_by_ms {
            acts.extend(watch.connect_deadline());
        }
        if watch.connecting() {
            self.terminal.progress(&watch.missing(), now_ms.saturating_sub(self.started_ms));
        }
        acts
    }

    fn carry_out(&mut self, acts: Vec<Act>, attempt: &mut Attempt<'_>, hosts: &HostList) {
        for act in acts {
            match act {
                Act::Start => {
                    self.terminal.progress(&[], 0);
                    for state in &mut self.states {
                        state.before = state.reached.shells;
                    }
                    let mut variables = self.workplace.places.variables(hosts, self.restarts > 0, self.site);
                    variables.extend(self.excludes(attempt.chosen));
                    match self.commands.start(&self.options.argv, &variables, self.site) {
                        Ok(running) => {
                            attempt.running = Some(running);
                            self.tell(|| Event::CommandStarted { restarts: self.restarts });
                        }
                        Err((why, outcome)) => {
                            let acts = attempt.watch.not_started(why, outcome);
                            self.carry_out(acts, attempt, hosts);
                        }
                    }
                }
                Act::Signal(signal) => {
                    if let Some(running) = &attempt.running {
                        running.signal(signal);
                    }
                }
                Act::Kill => {
                    if let Some(running) = &attempt.running {
                        running.kill();
                    }
                }
                Act::Over => attempt.over = true,
            }
        }
    }

    fn receive(&mut self, visitor: Visitor) {
        let asked = visitor.ask.host.as_str();
        match find_host(&self.hosts, asked) {
            Some(at) if self.states[at].here => drop(tokio::task::spawn_local(lines::run_here(visitor))),
            Some(at) => drop(self.states[at].calls.send(Call::Visit(visitor))),
            None => drop(tokio::task::spawn_local(lines::refuse(visitor))),
        }
    }

    async fn asked(&mut self, asked: Asked, attempt: &mut Attempt<'_>) -> Vec<Act> {
        match asked {
            Asked::End(signal) => return attempt.watch.end_signal(signal, boottime_ms()),
            Asked::Pass(signal) => attempt.signal(signal),
            Asked::Report => attempt.signal(signals::number("SIGQUIT").unwrap_or_default()),
            Asked::Suspend(signal) => {
                attempt.signal(signal);
                let _ = signals::raise(signals::STOP);
                attempt.signal(signals::CONTINUE);
            }
            Asked::Children => drop(reap::reap_adopted()),
        }
        Vec::new()
    }

    /// Ends what the command has left on this machine; remote shells among it take their commands along.
    async fn clear(&mut self) {
        for _ in 0..SWEEPS_MAX {
            if !self.commands.sweep() {
                return;
            }
            sleep(SWEEP_PAUSE).await;
        }
        report::say("muster: processes of the command on this machine cannot be ended");
    }
}

async fn ended(running: Option<&Running>) -> End {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}

async fn wait_until(due_ms: Option<u64>) {
    match due_ms {
        Some(at) => sleep(Duration::from_millis(at.saturating_sub(boottime_ms()))).await,
        None => std::future::pending().await,
    }
}
