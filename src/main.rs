//! The command `thalweg`: one file per verb. stdout is data, stderr is progress; exit 0 is fine, 1 the user's mistake,
//! 2 ours or usage.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "thalweg", version, about = "Deep learning as one static dataflow graph.")]
enum Command {
    /// Train a small convolutional network on handwritten digits, and look at what it learned.
    Demo(cli::demo::Demo),
    /// List what this machine can run on.
    Devices(cli::devices::Devices),
    /// Try whether workers can be joined, and what each pair of them does: latency and bandwidth as plans get them.
    Doctor(cli::doctor::Doctor),
    /// Say what a step is predicted to take, and why; with --analyze beside what it takes.
    Explain(cli::explain::Explain),
    /// Look at graphs.
    Graph(cli::graph::GraphCommand),
    /// Look at checkpoints and files of weights, and check them.
    Inspect(cli::inspect::Inspect),
    /// Check and time a case of the benchmark kit.
    Kit(cli::kit::Kit),
    /// Run a command over several processes of this machine: it, and so many workers for it.
    Launch(cli::launch::Launch),
    /// Show what runs: the plan of a program, launch by launch.
    Plan(cli::plan::PlanCommand),
    /// Show that a plan is sound, or what is wrong with it; and try that on plans with mistakes in them.
    Verify(cli::verify::Verify),
    /// Host a device for a job. `thalweg launch` starts workers; by hand it takes the job's address and key.
    Worker(cli::worker::Worker),
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Demo(demo) => demo.run(),
        Command::Devices(devices) => devices.run(),
        Command::Doctor(doctor) => match doctor.run() {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Command::Explain(explain) => explain.run(),
        Command::Graph(graph) => graph.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Kit(kit) => kit.run(),
        Command::Launch(launch) => match launch.run() {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Command::Plan(plan) => plan.run(),
        Command::Verify(verify) => verify.run(),
        Command::Worker(worker) => worker.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(1)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
