//! A program on the worker as an external step: lines of JSON on its standard input, answers on its standard output.
//!
//! Requests enter, answers leave. Each process works on one request at a time and stays for the next one; its standard
//! error goes to the log. One that is late, silent or out of form is ended with all its children and started anew, so an
//! answer that comes too late is never taken for another's. Processes end when their standard input does.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::ExternalError;
use super::answer::{Answer, AnswerError, MOST_BYTES};
use super::protocol::Request;
use super::services::Patience;

/// How long a process may take to end after its standard input has.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often it is looked whether an answer is still waited for.
const LOOK: Duration = Duration::from_millis(250);
/// Lines of a process that wait to be read.
const WAITING_LINES: usize = 64;

/// The processes of one step.
pub struct Command {
    jobs: Option<async_channel::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    request: Request,
    patience: Patience,
    answer: oneshot::Sender<Result<Answer, ExternalError>>,
}

impl Command {
    /// As many processes as may answer at once; each is started when it is needed.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn open(command: &[String], processes: u32) -> Result<Self, ExternalError> {
        let (jobs, taken) = async_channel::bounded::<Job>(processes as usize);
        let mut threads = Vec::new();
        for _ in 0..processes {
            let (taken, words) = (taken.clone(), command.to_vec());
            let thread = std::thread::Builder::new()
                .name("external".to_owned())
                .spawn(move || {
                    let mut process = None;
                    while let Ok(job) = taken.recv_blocking() {
                        if job.answer.is_closed() {
                            continue;
                        }
                        let answer = work(&mut process, &words, &job);
                        if answer.is_err() {
                            // Whatever it still says is about a request nobody waits for.
                            process = None;
                        }
                        // Not waited for any more: the worker stops.
                        let _gone = job.answer.send(answer);
                    }
                    if let Some(process) = process {
                        process.say_farewell();
                    }
                });
            let program = || command.first().cloned().unwrap_or_default();
            threads.push(thread.map_err(|source| ExternalError::Start {
                program: program(),
                source,
            })?);
        }
        Ok(Self {
            jobs: Some(jobs),
            threads,
        })
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// The program cannot be started, ends, is late, or does not say what it should.
    pub async fn ask(&self, request: &Request, patience: Patience) -> Result<Answer, ExternalError> {
        let (answer, answered) = oneshot::channel();
        let request = request.clone();
        let job = Job {
            request,
            patience,
            answer,
        };
        let jobs = self.jobs.as_ref().ok_or(ExternalError::Gone)?;
        jobs.send(job).await.map_err(|_| ExternalError::Gone)?;
        answered.await.map_err(|_| ExternalError::Gone)?
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that speaks with an external command panicked");
            }
        }
    }
}

fn work(process: &mut Option<Process>, command: &[String], job: &Job) -> Result<Answer, ExternalError> {
    let process = match process {
        Some(process) => process,
        none => none.insert(Process::start(command)?),
    };
    process.ask(job)
}

/// What a process said.
enum Said {
    Line(String),
    TooLong,
}

struct Process {
    child: Child,
    /// To a thread that writes: a process that does not read must not hold up whoever watches the deadline.
    to: Option<SyncSender<String>>,
    from: Receiver<Said>,
    /// The last line of its standard error.
    last: Arc<Mutex<String>>,
}

impl Process {
    fn start(command: &[String]) -> Result<Self, ExternalError> {
        let program = command.first().cloned().unwrap_or_default();
        let failed = |source| ExternalError::Start {
            program: program.clone(),
            source,
        };
        let mut child = std::process::Command::new(&program)
            .args(command.iter().skip(1))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that what it starts itself can be ended with it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (to, lines) = sync_channel::<String>(1);
        let (said, from) = sync_channel(WAITING_LINES);
        let last = Arc::new(Mutex::new(String::new()));
        if let Some(mut stdin) = child.stdin.take() {
            thread(move || {
                while let Ok(line) = lines.recv() {
                    // Broken when the process ended, which the reader of its output sees too.
                    if stdin
                        .write_all(line.as_bytes())
                        .and_then(|()| stdin.flush())
                        .is_err()
                    {
                        return;
                    }
                }
            })
            .map_err(failed)?;
        }
        if let Some(stdout) = child.stdout.take() {
            thread(move || read_lines(stdout, MOST_BYTES, |line| said.send(line).is_ok())).map_err(failed)?;
        }
        if let Some(stderr) = child.stderr.take() {
            let (last, program) = (last.clone(), program.clone());
            thread(move || {
                read_lines(stderr, 4_096, |line| {
                    if let Said::Line(line) = line {
                        tracing::info!(program, line, "an external command says");
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
                    }
                    true
                });
            })
            .map_err(failed)?;
        }
        Ok(Self {
            child,
            to: Some(to),
            from,
            last,
        })
    }

    fn ask(&mut self, job: &Job) -> Result<Answer, ExternalError> {
        let request = &job.request;
        if let Some(to) = &self.to {
            // Full only where the line before was never read; its deadline has passed then, and the process is gone.
            let _unread = to.try_send(request.to_line() + "\n");
        }
        loop {
            let (wait, late) = job.patience.next();
            match self.hear(Instant::now() + wait, job) {
                Ok(Said::TooLong) => return Err(AnswerError::TooLong.into()),
                Ok(Said::Line(line)) => {
                    let answer = Answer::read(&line).map_err(ExternalError::Printed)?;
                    if !answer.is_of(request) {
                        tracing::debug!(
                            id = answer.correlation_id,
                            "an answer nobody waits for is passed over"
                        );
                    } else if !answer.is_heartbeat() {
                        return Ok(answer);
                    }
                }
                Err(RecvTimeoutError::Timeout) if job.answer.is_closed() => return Err(ExternalError::Gone),
                Err(RecvTimeoutError::Timeout) => return Err(late),
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
            }
        }
    }

    /// What it says next, until then or until nobody waits for it any more.
    fn hear(&self, until: Instant, job: &Job) -> Result<Said, RecvTimeoutError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.from.recv_timeout(left.min(LOOK)) {
                Err(RecvTimeoutError::Timeout) if left > LOOK && !job.answer.is_closed() => {}
                said => return said,
            }
        }
    }

    /// Its output has ended: how it did.
    fn ended(&mut self) -> ExternalError {
        let status = match self.wait(FAREWELL) {
            Some(status) => status,
            None => "closed output".to_owned(),
        };
        // The line may be on its way still.
        std::thread::sleep(Duration::from_millis(20));
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ExternalError::Ended { status, last }
    }

    /// Waits for it to end; `None` where it does not.
    fn wait(&mut self, patience: Duration) -> Option<String> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status.to_string()),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Ends its standard input and gives it a moment to end by itself.
    fn say_farewell(mut self) {
        self.to = None;
        self.wait(FAREWELL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: sends a signal to the group that was made for this child, which is not reaped yet, or leaves it.
            // A group that has ended gives an error, which says just that.
            let _ended_before = unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "an external command could not be waited for");
        }
    }
}

fn thread(work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("external-io".to_owned())
        .spawn(work)
}

/// Hands on lines that are not blank until there are no more, one is too long, or `take` wants none.
fn read_lines(from: impl Read, most: usize, mut take: impl FnMut(Said) -> bool) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match (&mut from).take(most as u64 + 1).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(length) if length > most => {
                // Of a message for people the rest is another line; an answer cannot be used any more.
                if !take(Said::TooLong) {
                    return;
                }
            }
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim();
                if !text.is_empty() && !take(Said::Line(text.to_owned())) {
                    return;
                }
            }
        }
    }
}
