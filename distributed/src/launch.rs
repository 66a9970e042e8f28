//! The launcher: one driver, so many workers, and nobody left behind. It makes the job, starts the driver, and the workers
//! once the driver takes connections: a command that wants no workers gets none.
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

use crate::{HostError, JOB_VARIABLE, Job, JobKey, Reach, WORLD_VARIABLE};

/// Where a driver reads whose child it is.
const LAUNCHER_VARIABLE: &str = "THALWEG_LAUNCHER";
/// How often the launcher looks who has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How long workers may stay once the driver has ended, and a driver whose workers did not start.
const PARTING_LIMIT: Duration = Duration::from_secs(5);

/// What is to be launched.
#[derive(Clone, Debug)]
pub struct Launch {
    /// How many workers are started.
    pub here: u16,
    /// How many more come from elsewhere: with the key, to where the driver takes connections.
    pub elsewhere: u16,
    /// Where that is, and how.
    pub reach: Reach,
    /// The job's key; if there is none, a new one.
    pub key: Option<JobKey>,
    /// The driver: a program and its arguments.
    pub driver: Vec<OsString>,
    /// The program whose verb `worker` is a worker.
    pub program: PathBuf,
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
    let Launch { here, elsewhere, reach, key, driver, program } = what;
    let (here, world) = (*here, here.saturating_add(*elsewhere));
    let (first, arguments) = driver.split_first().ok_or_else(|| HostError::Job("there is nothing to launch".into()))?;
    let job = Job::create(world, *reach, key.clone())?;
    let _folder = Folder(&job);
    // This very program, wherever it lies.
    let first = if first == "thalweg" { program.as_os_str() } else { first };
    let mut driver = Kept::start(
        Command::new(first)
            .args(arguments)
            .env(JOB_VARIABLE, job.folder())
            .env(WORLD_VARIABLE, world.to_string())
            .env(LAUNCHER_VARIABLE, std::process::id().to_string())
            .envs(reach.variables()),
    )?;
    let address = loop {
        if let Some(status) = driver.look() {
            let code = code(status);
            let idle = format!("{} ended without asking for its {world} workers", first.to_string_lossy());
            return if code == 0 { Err(HostError::Job(idle)) } else { Ok(code) };
        }
        if let Some(address) = job.address() {
            break address;
        }
        thread::sleep(LOOK);
    };
    let start = |_| {
        let mut command = Command::new(program);
        command.arg("worker").arg("--supervised").arg("--join").arg(address.to_string());
        command.arg("--key").arg(job.key_file()).args(reach.flag());
        for name in [JOB_VARIABLE, WORLD_VARIABLE, LAUNCHER_VARIABLE].into_iter().chain(Reach::VARIABLES) {
            command.env_remove(name);
        }
        Kept::start(command.stdin(Stdio::piped()).stdout(Stdio::null()))
    };
    let mut workers = (0..here).map(start).collect::<Result<Vec<_>, _>>()?;
    let mut missed: Option<Instant> = None;
    let status = loop {
        if let Some(status) = driver.look() {
            break status;
        }
        for worker in &mut workers {
            let (process, status) = (worker.child.id(), worker.look());
            if let Some(status) = status.filter(|s| !s.success()) {
                eprintln!("the worker of process {process} {}", how(status));
                // The driver notices who is gone; but not who has not come.
                missed = missed.or_else(|| job.folder().exists().then(Instant::now));
            }
        }
        if missed.is_some_and(|since| since.elapsed() > PARTING_LIMIT) {
            return Err(HostError::Job("not all workers started; the driver was ended".into()));
        }
        thread::sleep(LOOK);
    };
    part(&mut workers);
    if status.signal().is_some() {
        eprintln!("the driver {}", how(status));
    }
    Ok(code(status))
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
///
/// # Errors
/// If a thread cannot be started.
pub fn end_with_launcher() -> Result<(), HostError> {
    let watch = || {
        let mut bytes = [0; 64];
        loop {
            match io::stdin().lock().read(&mut bytes) {
                Ok(0) => break,
                Err(e) if e.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        eprintln!("the launcher is gone");
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

    fn run(script: &str) -> Result<u8, HostError> {
        let driver = ["sh", "-c", script].iter().map(OsString::from).collect();
        let (reach, program) = (Reach::default(), "/bin/false".into());
        launch(&Launch { here: 2, elsewhere: 0, reach, key: None, driver, program })
    }

    #[test]
    fn the_drivers_exit_code_is_the_launchers() {
        assert_eq!(run("exit 3").expect("it runs"), 3);
        assert_eq!(run("kill -9 $$").expect("it runs"), 128 + 9);
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
