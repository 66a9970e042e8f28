//! The launcher: one driver, so many workers, and nobody left behind. It makes the job, starts the driver, and the workers
//! once the driver takes connections: a command that wants no workers gets none. Who is killed is started anew, so many
//! times in all; then a job goes on with the workers that are left, and not without its driver.
//!
//! Nobody outlives the others, however they end. A worker hangs on its connection to the driver, and on a pipe of which the
//! launcher has the other end; on Linux the driver is told by the system when the launcher dies, elsewhere it misses its
//! workers at the next step. The launcher itself waits for all, and ends those that stay.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thalweg_runtime::checkpoint::Root;

use crate::{HostError, JOB_VARIABLE, Job, JobKey, Reach, WORLD_VARIABLE};

/// Where a driver reads whose child it is.
const LAUNCHER_VARIABLE: &str = "THALWEG_LAUNCHER";
/// How often the launcher looks who has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How often it looks whether one that does not answer is to be ended.
const FENCE_LOOK: Duration = Duration::from_millis(100);
/// How long workers may stay once the driver has ended, and a driver whose workers did not start.
const PARTING_LIMIT: Duration = Duration::from_secs(5);

/// What is to be launched.
#[derive(Clone, Debug)]
pub struct Launch {
    /// How many workers are started.
    pub world: u16,
    /// How many more come from other machines, with the key, to where the driver takes connections.
    pub elsewhere: u16,
    /// Where that is.
    pub reach: Reach,
    /// The job's key; if there is none, a new one.
    pub key: Option<JobKey>,
    /// The driver: a program and its arguments.
    pub driver: Vec<OsString>,
    /// The program whose verb `worker` is a worker.
    pub program: PathBuf,
    /// Directories below which workers save what they hold.
    pub roots: Vec<Root>,
    /// How many processes that were killed are started anew, in all.
    pub restarts: u32,
}

/// A process of ours. Dropped, it is ended.
struct Kept {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Kept {
    fn start(command: &mut Command) -> Result<Self, HostError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(HostError::io(format!("cannot start {program}")))?;
        Ok(Self { child, ended: None })
    }
    /// Whether it has ended by now, and how, for the first who asks.
    fn look(&mut self) -> Option<ExitStatus> {
        if self.ended.is_some() {
            return None;
        }
        self.ended = self.child.try_wait().ok().flatten();
        self.ended
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The job's folder, while it is needed.
struct Folder<'a>(&'a Job);
impl Drop for Folder<'_> {
    fn drop(&mut self) {
        self.0.forget();
    }
}

/// Runs a job to its end; gives the driver's exit code, or 128 and the signal that ended it.
///
/// # Errors
/// If processes cannot be started, or the driver ended in peace and never asked for its workers.
pub fn launch(what: &Launch) -> Result<u8, HostError> {
    let job = Job::create(what.all(), what.reach, what.key.clone())?;
    let _folder = Folder(&job);
    job.share(&what.roots)?;
    let mut restarts = what.restarts;
    let mut driver = what.driver(&job)?;
    let mut crew: Option<Crew<'_>> = None;
    let status = loop {
        if let Some(status) = driver.look() {
            if !is_crash(status) || restarts == 0 {
                break status;
            }
            restarts -= 1;
            eprintln!("the driver (process {}) {}; it is started anew", driver.child.id(), how(status));
            driver = what.driver(&job)?;
        }
        match &mut crew {
            None if job.address().is_some() => crew = Some(Crew::start(what, &job)?),
            None => {}
            Some(crew) => crew.look(&mut restarts)?,
        }
        thread::sleep(LOOK);
    };
    let Some(mut crew) = crew else {
        let program = what.driver.first().map_or(String::new(), |p| p.to_string_lossy().into_owned());
        let idle = format!("{program} ended without asking for its {} workers", what.all());
        return if status.success() { Err(HostError::Job(idle)) } else { Ok(code(status)) };
    };
    // Who looks for another driver learns that there is none.
    job.forget();
    part(&mut crew.workers);
    if status.signal().is_some() {
        eprintln!("the driver {}", how(status));
    }
    Ok(code(status))
}

impl Launch {
    /// A job within this machine, of which nobody is started anew: what is to be measured is measured undisturbed or not at all.
    pub fn undisturbed(world: u16, driver: Vec<OsString>, program: PathBuf) -> Self {
        let reach = Reach::default();
        Self { world, elsewhere: 0, reach, key: None, driver, program, roots: vec![], restarts: 0 }
    }
    fn all(&self) -> u16 {
        self.world.saturating_add(self.elsewhere)
    }
    fn driver(&self, job: &Job) -> Result<Kept, HostError> {
        let split = self.driver.split_first().ok_or_else(|| HostError::Job("there is nothing to launch".into()));
        let (first, arguments) = split?;
        // This very program, wherever it lies.
        let first = if first == "thalweg" { self.program.as_os_str() } else { first };
        Kept::start(
            Command::new(first)
                .args(arguments)
                .env(JOB_VARIABLE, job.folder())
                .env(WORLD_VARIABLE, self.all().to_string())
                .env(LAUNCHER_VARIABLE, std::process::id().to_string()),
        )
    }
    fn worker(&self, job: &Job, rank: u16) -> Result<Kept, HostError> {
        let mut command = Command::new(&self.program);
        command.arg("worker").arg("--supervised").arg("--job").arg(job.folder()).arg("--rank").arg(rank.to_string());
        for name in [JOB_VARIABLE, WORLD_VARIABLE, LAUNCHER_VARIABLE] {
            command.env_remove(name);
        }
        Kept::start(command.stdin(Stdio::piped()).stdout(Stdio::null()))
    }
}

/// The workers, by rank.
struct Crew<'a> {
    what: &'a Launch,
    job: &'a Job,
    workers: Vec<Kept>,
    /// Since when somebody is missing who has not come yet.
    missed: Option<Instant>,
    /// When it was last looked whether somebody is to be ended.
    fenced: Instant,
}

impl<'a> Crew<'a> {
    fn start(what: &'a Launch, job: &'a Job) -> Result<Self, HostError> {
        let workers = (0..what.world).map(|rank| what.worker(job, rank)).collect::<Result<_, _>>()?;
        Ok(Self { what, job, workers, missed: None, fenced: Instant::now() })
    }
    /// Ends those that the driver wants to be ended.
    fn fence(&mut self) {
        if self.fenced.elapsed() < FENCE_LOOK {
            return;
        }
        self.fenced = Instant::now();
        for worker in self.workers.iter_mut().filter(|w| w.ended.is_none()) {
            let process = worker.child.id();
            if self.job.take_fence(process) {
                eprintln!("the worker of process {process} does not answer, and is ended");
                let _ = worker.child.kill();
            }
        }
    }
    /// Starts those anew that have ended.
    fn look(&mut self, restarts: &mut u32) -> Result<(), HostError> {
        self.fence();
        for (worker, rank) in self.workers.iter_mut().zip(0..) {
            let process = worker.child.id();
            let Some(status) = worker.look() else { continue };
            // Where nobody has ever come together, one that ends by itself would do so again.
            let hopeless = status.code().is_some() && self.job.terms()? == 0;
            if *restarts > 0 && !status.success() && !hopeless {
                *restarts -= 1;
                eprintln!("the worker of process {process} {}; it is started anew", how(status));
                *worker = self.what.worker(self.job, rank)?;
                // What was said of another process with its number.
                self.job.take_fence(worker.child.id());
                continue;
            }
            if !status.success() {
                eprintln!("the worker of process {process} {}", how(status));
            }
            if hopeless {
                self.missed = self.missed.or_else(|| Some(Instant::now()));
            }
            let left = self.workers.iter().filter(|w| w.ended.is_none()).count();
            self.job.expect(left + usize::from(self.what.elsewhere))?;
            break;
        }
        if self.missed.is_some_and(|since| since.elapsed() > PARTING_LIMIT) {
            return Err(HostError::Job("not all workers started; the driver was ended".into()));
        }
        Ok(())
    }
}

/// Whether somebody, or the system, has ended it: it would not have ended by itself. Being asked to end is something else.
fn is_crash(status: ExitStatus) -> bool {
    // Hangup, interrupt, end.
    status.signal().is_some_and(|signal| ![1, 2, 15].contains(&signal))
}

/// Lets workers leave, for a while. Who was killed is told: that may be why the driver ended.
fn part(workers: &mut [Kept]) {
    let until = Instant::now() + PARTING_LIMIT;
    loop {
        for worker in &mut *workers {
            let (process, status) = (worker.child.id(), worker.look());
            if let Some(status) = status.filter(|s| s.signal().is_some()) {
                eprintln!("the worker of process {process} {}", how(status));
            }
        }
        let stay: Vec<String> =
            workers.iter().filter(|w| w.ended.is_none()).map(|w| w.child.id().to_string()).collect();
        if stay.is_empty() {
            return;
        }
        if Instant::now() > until {
            eprintln!("workers of processes {} did not leave, and were ended", stay.join(", "));
            return;
        }
        thread::sleep(LOOK);
    }
}

fn code(status: ExitStatus) -> u8 {
    let signal = || status.signal().map_or(1, |s| 128 + s);
    status.code().unwrap_or_else(signal).clamp(0, 255) as u8
}

/// How a process ended, for people.
fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "was killed (signal 9): by somebody, or by the system for want of memory".into(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".into(),
    }
}

/// Ends this process when the launcher's end of its standard input is closed, which the system does if the launcher dies.
/// Then the job is over.
///
/// # Errors
/// If a thread cannot be started.
pub fn end_with_launcher(job: Option<Job>) -> Result<(), HostError> {
    let watch = move || {
        let mut bytes = [0; 64];
        loop {
            match io::stdin().lock().read(&mut bytes) {
                Ok(0) => break,
                Err(e) if e.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        eprintln!("the launcher is gone");
        job.iter().for_each(Job::forget);
        std::process::exit(1);
    };
    let spawned = thread::Builder::new().name("watching the launcher".into()).spawn(watch);
    spawned.map(drop).map_err(HostError::io("cannot start a thread"))
}

/// Has the system end this process, the driver, when the launcher whose child it is dies. Elsewhere than on Linux, nothing.
pub(crate) fn die_with_launcher() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let launcher = std::env::var(LAUNCHER_VARIABLE).ok().and_then(|pid| pid.parse::<i32>().ok());
        let is_parent = || getppid().map(|p| p.as_raw_nonzero().get()) == launcher;
        // Only its own child: the driver may be started by a script, which ends when it likes.
        if launcher.is_some() && is_parent() {
            let _ = set_parent_process_death_signal(Some(Signal::TERM));
            // It may have died before that.
            if !is_parent() {
                std::process::exit(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(driver: Vec<OsString>, restarts: u32) -> Launch {
        Launch { restarts, ..Launch::undisturbed(2, driver, "/bin/false".into()) }
    }
    fn run(script: &str) -> Result<u8, HostError> {
        let driver = ["sh", "-c", script].iter().map(OsString::from).collect();
        launch(&what(driver, 0))
    }

    #[test]
    fn the_drivers_exit_code_is_the_launchers() {
        assert_eq!(run("exit 3").expect("it runs"), 3);
        assert_eq!(run("kill -9 $$").expect("it runs"), 128 + 9);
    }

    /// Every time as often as it may be.
    #[test]
    fn a_driver_that_was_killed_is_started_anew() {
        let folder = std::env::temp_dir().join(format!("thalweg-launch-{}", std::process::id()));
        let script = format!("echo x >> {0}; test $(wc -l < {0}) = 4 || kill -9 $$; exit 5", folder.display());
        let driver: Vec<OsString> = ["sh", "-c", &script].iter().map(OsString::from).collect();
        let run = |restarts| launch(&what(driver.clone(), restarts));
        assert_eq!(run(1).expect("it runs"), 128 + 9);
        assert_eq!(run(1).expect("it runs"), 5);
        std::fs::remove_file(&folder).expect("it was written");
    }

    #[test]
    fn a_command_that_wants_no_workers_is_told() {
        let error = run("test -n \"$THALWEG_JOB\" && test \"$THALWEG_WORLD\" = 2").expect_err("nobody joined");
        assert!(error.to_string().contains("without asking for its 2 workers"), "{error}");
    }

    /// Workers that end at once: the driver would wait for them in vain.
    #[test]
    fn a_driver_whose_workers_do_not_start_is_ended() {
        let started = Instant::now();
        let error =
            run("echo 127.0.0.1:1 > $THALWEG_JOB/half; mv $THALWEG_JOB/half $THALWEG_JOB/address; exec sleep 100");
        let error = error.expect_err("nobody joined").to_string();
        assert!(error.contains("not all workers started"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }
}
