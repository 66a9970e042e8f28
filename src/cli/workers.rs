//! Distributed cases of the kit, as its driver asks for them: one command that starts its own workers. `dp_mlp_train` over two
//! processes is `dp_mlp_train_p2` on two workers; with a parameter server, `ps_mlp_train`, there is one process more.

use std::ffi::OsString;

use anyhow::Context as _;
use thalweg::distributed::launch;

/// The case that `name` is for so many workers, and how many processes it takes: the server is not counted as a worker. `None`
/// if it is no such case.
pub(super) fn distributed(name: &str, workers: u16) -> Option<(String, u16)> {
    let servers = match name.split_once('_')?.0 {
        "dp" => 0,
        "ps" => 1,
        _ => return None,
    };
    Some((format!("{name}_p{workers}"), workers + servers))
}

/// Runs this very command once more, as the driver of `world` workers and for the case `case`: the arguments are those of
/// this process, but for the case and `--procs`.
pub(super) fn launch_this(case: &str, world: u16) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("where is this program?")?;
    let driver = [program.clone().into_os_string()].into_iter().chain(for_case(std::env::args_os().skip(1), case));
    let code = launch::launch(&launch::Launch::undisturbed(world, driver.collect(), program))?;
    anyhow::ensure!(code == 0, "the driver ended with exit code {code}");
    Ok(())
}

/// `arguments` for another case and without `--procs`.
fn for_case(arguments: impl Iterator<Item = OsString>, case: &str) -> Vec<OsString> {
    let (mut out, mut arguments) = (vec![], arguments);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        match text.split_once('=').map_or(&*text, |(name, _)| name) {
            "--case" | "--procs" => drop(if text.contains('=') { None } else { arguments.next() }),
            _ => out.push(argument),
        }
    }
    out.extend(["--case".into(), case.into()]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_over_workers_is_one_of_its_own() {
        assert_eq!(distributed("dp_mlp_train", 2), Some(("dp_mlp_train_p2".into(), 2)));
        assert_eq!(distributed("ps_resnet18_train", 4), Some(("ps_resnet18_train_p4".into(), 5)));
        assert_eq!(distributed("mlp_train", 2), None);
        let said = ["kit", "--procs", "2", "--case=dp_mlp_train", "--json", "--reps", "3"].map(OsString::from);
        let want = ["kit", "--json", "--reps", "3", "--case", "dp_mlp_train_p2"].map(OsString::from);
        assert_eq!(for_case(said.into_iter(), "dp_mlp_train_p2"), want);
    }
}
