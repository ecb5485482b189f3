//! A line to each host: a connection to its agent that is ready for the next command, and a sign of whether the host lives.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use muster_protocol::hello::{Hello, HostFacts, HostNetwork};
use muster_protocol::limits::{BULK_QUEUE_FRAMES_MAX, SILENCE_DEAD_MS};
use muster_protocol::message::{Message, ShellPing, ShellStart, Stamp};
use muster_protocol::{Epoch, Generation, HostIndex};
use muster_transport::connection::{ReceiveError, Receiver, Sender};
use muster_transport::dial::{DialError, Dialed, Dialer, Failure};
use muster_worker_agent::shell::client::{self, Broken, Ends};
use muster_worker_agent::shell::desk::{self, Told};
use muster_worker_agent::shell::rsh;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::desk::Visitor;

/// Time for one attempt to reach a host.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for the attempt that decides whether a host that was reached is lost.
pub(super) const PROBE: Duration = Duration::from_millis(1_500);
/// Silence after which that attempt is made: both together are what the rest of Muster takes for death.
const SILENCE: Duration = Duration::from_millis(SILENCE_DEAD_MS).saturating_sub(PROBE);
/// Time between two signs of life.
const PING: Duration = Duration::from_secs(1);
/// Exit status of a remote shell whose host is gone, as ssh has it.
const GONE: u8 = 255;

/// Remote shells belong to no job.
const STAMP: Stamp = Stamp { epoch: Epoch(0), generation: Generation(0) };

/// What a line tells.
#[derive(Debug)]
pub(super) enum News {
    /// Its agent answers; what it says of its host, and by which address it was reached.
    Ready(Box<Reached>),
    /// It was not reached.
    Unreached { why: String, not_authorised: bool },
    /// It was reached before, and is gone.
    Lost { why: String },
    /// A command of a remote shell has begun.
    Begun,
    /// So many have begun there in all, those of daemons elsewhere included.
    Shells(u64),
    /// A remote shell has asked for it in vain.
    Refused { why: String },
    /// Such a command has ended with this status.
    Ended { code: u8 },
}

/// A host whose agent answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Reached {
    /// Commands of remote shells that it has begun in all.
    pub(super) shells: Option<u64>,
    /// Where it is on its networks.
    pub(super) network: Option<HostNetwork>,
    /// Its address.
    pub(super) address: Option<IpAddr>,
}

/// What a line is asked for.
pub(super) enum Call {
    /// To run a visitor's command.
    Visit(Visitor),
    /// To tell its agent that the command has succeeded. What waits for this to be dropped waits until the agent has understood.
    Over(oneshot::Sender<()>),
}

/// Where a host is, and what is common to all lines.
pub(super) struct Target {
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) job: String,
    pub(super) dialer: Dialer,
    pub(super) news: mpsc::UnboundedSender<(usize, News)>,
}

impl Target {
    fn hello(&self) -> Hello {
        rsh::hello(&self.name, self.job.clone())
    }

    fn tell(&self, news: News) {
        // Without anybody to hear it the command is over.
        let _ = self.news.send((self.at, news));
    }

    async fn dial(&self, hello: &Hello, limit: Duration) -> Result<Dialed, DialError> {
        self.dialer.dial(&self.name, self.port, hello, limit).await
    }

    /// Dials until it answers, or nobody calls any more. A visitor waits for the attempt under way; once one has failed, or the
    /// host is known to be lost, he hears so at once. An agent that shall hear that the command is over is dialled once more.
    async fn reach(
        self: &Rc<Self>,
        hello: &Hello,
        calls: &mut mpsc::UnboundedReceiver<Call>,
        lost: bool,
    ) -> Option<Dialed> {
        let mut gone = lost;
        loop {
            let pause = if gone { PAUSE } else { Duration::ZERO };
            let attempt = async {
                sleep(pause).await;
                self.dial(hello, ATTEMPT).await
            };
            let mut attempt = std::pin::pin!(attempt);
            let dialed = loop {
                tokio::select! {
                    dialed = &mut attempt => break dialed,
                    call = calls.recv(), if gone => match call? {
                        Call::Visit(visitor) => drop(tokio::task::spawn_local(turn_away(self.clone(), visitor))),
                        Call::Over(_told) => {
                            if let Ok(dialed) = attempt.await {
                                tell_over(spawn(dialed)).await;
                            }
                            return None;
                        }
                    },
                }
            };
            match dialed {
                Ok(dialed) => return Some(dialed),
                Err(error) => {
                    gone = true;
                    let not_authorised = matches!(error.failure, Failure::WrongKey | Failure::WrongJob { .. });
                    self.tell(News::Unreached { why: error.failure.to_string(), not_authorised });
                }
            }
        }
    }

    /// How many commands its agent has begun in all; none when it does not answer.
    pub(super) async fn shells(&self) -> Option<u64> {
        self.dial(&self.hello(), PROBE).await.ok()?.welcome.facts.shells
    }

    /// Whether its agent answers now.
    pub(super) async fn answers(&self) -> bool {
        self.dial(&self.hello(), PROBE).await.is_ok()
    }
}

/// Keeps a line until nobody calls any more.
pub(super) async fn keep(target: Rc<Target>, mut calls: mpsc::UnboundedReceiver<Call>) {
    let hello = target.hello();
    // The agent's incarnation, once it was reached: another one knows nothing of what ran before.
    let mut known = None;
    let mut again: Option<Dialed> = None;
    let mut lost = false;
    loop {
        let dialed = match again.take() {
            Some(dialed) => dialed,
            None => match target.reach(&hello, &mut calls, lost).await {
                Some(dialed) => dialed,
                None => return,
            },
        };
        if known.replace(dialed.welcome.incarnation).is_some_and(|k| k != dialed.welcome.incarnation) {
            target.tell(News::Lost { why: "its agent was started anew".to_owned() });
        }
        lost = false;
        let HostFacts { shells, network, .. } = dialed.welcome.facts.clone();
        let address = dialed.address.map(|address| address.ip());
        target.tell(News::Ready(Box::new(Reached { shells, network, address })));
        let mut line = spawn(dialed);
        let why = tokio::select! {
            call = calls.recv() => match call {
                Some(Call::Visit(visitor)) => {
                    tokio::task::spawn_local(serve(target.clone(), visitor, line));
                    continue;
                }
                // The agent may end now, and nobody wants another line.
                Some(Call::Over(_told)) => return tell_over(line).await,
                None => return line.0.close(),
            },
            why = idle(&target, &mut line) => why,
        };
        drop(line);
        match target.dial(&hello, PROBE).await {
            Ok(dialed) => again = Some(dialed),
            Err(_) => {
                lost = true;
                target.tell(News::Lost { why });
            }
        }
    }
}

fn spawn(dialed: Dialed) -> (Sender, Receiver) {
    dialed.spawn(BULK_QUEUE_FRAMES_MAX, &TaskTracker::new())
}

/// Gives signs of life and waits for them; returns why there are none any more.
async fn idle(target: &Target, (sender, receiver): &mut (Sender, Receiver)) -> String {
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            _ = ping.tick() => {
                let _ = sender.try_send(STAMP.frame(HostIndex(0), &ShellPing::default()));
            }
            heard = timeout_at(last + SILENCE, receiver.recv()) => match heard {
                Ok(Ok(Some(frame))) => {
                    last = Instant::now();
                    if let Ok(ShellPing { shells: Some(shells), .. }) = ShellPing::read(&frame) {
                        target.tell(News::Shells(shells));
                    }
                }
                Ok(Ok(None) | Err(ReceiveError::Aborted)) => {
                    return "its agent closed the connection; was it killed?".to_owned();
                }
                Ok(Err(error)) => return format!("the connection to its agent broke: {error}"),
                Err(_) => {
                    tracing::debug!(host = target.name, "no sign of life");
                    return format!(
                        "no sign of life for {} s; is the host down, or the network cut?",
                        SILENCE_DEAD_MS / 1_000
                    );
                }
            },
        }
    }
}

/// Tells an agent that the command has succeeded, and waits until it has understood; one of an earlier release does not say so.
async fn tell_over((sender, mut receiver): (Sender, Receiver)) {
    let over = ShellPing { over: Some(true), ..ShellPing::default() };
    if sender.send(STAMP.frame(HostIndex(0), &over)).await.is_ok() {
        while let Ok(Some(frame)) = receiver.recv().await {
            if ShellPing::read(&frame).is_ok_and(|answer| answer.over == Some(true)) {
                break;
            }
        }
    }
    sender.close();
}

/// Runs a visitor's command. When the visitor goes, so does the command.
async fn serve(target: Rc<Target>, visitor: Visitor, line: (Sender, Receiver)) {
    let Visitor { ask, descriptors, socket } = visitor;
    let Ok(mut socket) = UnixStream::from_std(socket) else { return };
    let start = ShellStart { command: ask.command, user: ask.user, terminal: None, term: None, input: ask.input };
    let Some(ends) = ends(descriptors, ask.input) else { return };
    target.tell(News::Begun);
    let sender = line.0.clone();
    let (_nothing_more, tell) = mpsc::unbounded_channel();
    let hello = target.hello();
    let result = tokio::select! {
        result = client::run_over(line, &hello, &start, ends, tell) => result,
        () = gone(&mut socket) => return sender.abort(),
    };
    let lost = match &result {
        Err(Broken::Output { .. } | Broken::Thread(_)) | Ok(_) => None,
        Err(broken) => Some(broken.to_string()),
    };
    let told = rsh::verdict(&target.name, result);
    match lost {
        Some(why) => target.tell(News::Lost { why }),
        None => target.tell(News::Ended { code: told.code }),
    }
    answer(socket, &told).await;
}

fn ends(descriptors: Vec<OwnedFd>, input: bool) -> Option<Ends> {
    let mut descriptors = descriptors.into_iter();
    let stdin = if input { Some(descriptors.next()?) } else { None };
    Some(Ends { stdin, stdout: descriptors.next()?, stderr: descriptors.next()? })
}

/// A visitor says nothing more, so whatever can be read is the end.
async fn gone(socket: &mut UnixStream) {
    let _ = socket.read_u8().await;
}

async fn answer(mut socket: UnixStream, told: &Told) {
    let _ = timeout(ATTEMPT, socket.write_all(&desk::answer(told))).await;
}

/// A host that is not there starts nothing, and who waits for it hears so at once.
async fn turn_away(target: Rc<Target>, visitor: Visitor) {
    let why = "its agent is not reached";
    target.tell(News::Refused { why: why.to_owned() });
    reply(visitor, Told { code: GONE, message: Some(format!("{}: {why}", target.name)), here: false }).await;
}

/// Answers a visitor who asks for a host that is not in the list.
pub(super) async fn refuse(visitor: Visitor) {
    let message = format!("{}: not a host of this command; see its host list", visitor.ask.host);
    reply(visitor, Told { code: GONE, message: Some(message), here: false }).await;
}

/// Answers a visitor who asks for the machine that he is on.
pub(super) async fn run_here(visitor: Visitor) {
    reply(visitor, Told { code: 0, message: None, here: true }).await;
}

async fn reply(visitor: Visitor, told: Told) {
    if let Ok(socket) = UnixStream::from_std(visitor.socket) {
        answer(socket, &told).await;
    }
}
