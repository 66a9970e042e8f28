//! Who this process is where an engine has started all of a job's processes alike: torchrun, Slurm, Open MPI, Kubernetes. Rank 0
//! drives, the others are workers. Nothing is guessed: an engine that says half of it, two that disagree, and a missing
//! master are errors, and the master is never taken to be this machine.
//!
//! Tried under Open MPI 4.1.4 and Slurm 22.05, on one machine. Neither says where rank 0 is: it takes `mpirun -x
//! THALWEG_MASTER=HOST:PORT`, and for `srun` the variable in the environment. When one process is killed `mpirun` ends the
//! others, unless it is told `--enable-recovery`; `srun` does not, unless it is told `-K1`. Those that are left wait a minute
//! for it, go on without it, and give the same numbers: nobody is started in its place.

use std::fmt;

use crate::HostError;

/// Our own names for what engines say; they count before all others.
pub const RANK_VARIABLE: &str = "THALWEG_RANK";
/// Where rank 0 takes connections, as `HOST:PORT`; it completes what an engine says.
pub const MASTER_VARIABLE: &str = "THALWEG_MASTER";

/// What an engine says of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contract {
    /// Which engine.
    pub by: &'static str,
    /// Which of its processes this is; 0 drives.
    pub rank: u16,
    /// How many they are, the driver among them.
    pub world: u16,
    /// Where rank 0 takes connections: `HOST:PORT`.
    pub master: String,
    /// What tells this run from others with the same master.
    pub run: String,
}

/// The variables of an engine: of rank and world, of the master where it has one, and of the run.
struct Engine {
    name: &'static str,
    rank: &'static str,
    world: &'static str,
    master: Option<[&'static str; 2]>,
    run: &'static str,
}

const ENGINES: [Engine; 5] = [
    Engine { name: "Thalweg", rank: RANK_VARIABLE, world: crate::WORLD_VARIABLE, master: None, run: "THALWEG_RUN" },
    Engine {
        name: "torchrun",
        rank: "RANK",
        world: "WORLD_SIZE",
        master: Some(["MASTER_ADDR", "MASTER_PORT"]),
        run: "TORCHELASTIC_RUN_ID",
    },
    // Of a step that `srun` has begun: a batch script has a rank as well, and is not one of several.
    Engine { name: "Slurm", rank: "SLURM_PROCID", world: "SLURM_STEP_NUM_TASKS", master: None, run: "SLURM_JOB_ID" },
    Engine {
        name: "Open MPI",
        rank: "OMPI_COMM_WORLD_RANK",
        world: "OMPI_COMM_WORLD_SIZE",
        master: None,
        run: "PMIX_NAMESPACE",
    },
    Engine {
        name: "Kubernetes",
        rank: "JOB_COMPLETION_INDEX",
        world: crate::WORLD_VARIABLE,
        master: None,
        run: "JOB_NAME",
    },
];

/// What is found of one engine.
struct Found {
    engine: &'static Engine,
    rank: u16,
    world: u16,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, rank, world } = self;
        write!(f, "{} says rank {rank} of {world} ({}, {})", engine.name, engine.rank, engine.world)
    }
}

impl Contract {
    /// What these variables say; nothing if no engine has started this process, or only this one.
    ///
    /// # Errors
    /// If they make no sense, if two engines disagree, and if nobody says where rank 0 is.
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, HostError> {
        let mut all = vec![];
        for engine in &ENGINES {
            all.extend(found(engine, variable)?);
        }
        let Some(first) = all.first() else { return Ok(None) };
        // What was said to us counts before what was said to everybody.
        let is_ours = first.engine.rank == RANK_VARIABLE;
        if let Some(other) = all.iter().find(|f| !is_ours && (f.rank, f.world) != (first.rank, first.world)) {
            return Err(HostError::Job(format!(
                "two engines disagree about who this process is: {first}, but {other}. Unset the variables of one, or set \
                 {RANK_VARIABLE} and {}",
                crate::WORLD_VARIABLE
            )));
        }
        if first.rank >= first.world {
            return Err(HostError::Job(format!("{first}: ranks go from 0 to {}", first.world.saturating_sub(1))));
        }
        if first.world == 1 {
            return Ok(None);
        }
        let run = all.iter().find_map(|f| variable(f.engine.run)).unwrap_or_default();
        let Found { engine, rank, world } = *first;
        Ok(Some(Self { by: engine.name, rank, world, master: master(first, variable)?, run }))
    }
    /// What this process's environment says.
    ///
    /// # Errors
    /// As [`Contract::of`].
    pub fn of_environment() -> Result<Option<Self>, HostError> {
        Self::of(&|name| std::env::var(name).ok().filter(|text| !text.is_empty()))
    }
}

fn found(engine: &'static Engine, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Found>, HostError> {
    let number = |name: &str| {
        let wrong = |text: &String| HostError::Job(format!("{name} is `{text}`, and should be a number below 65536"));
        variable(name).map(|text| text.trim().parse::<u16>().map_err(|_| wrong(&text))).transpose()
    };
    let Some(rank) = number(engine.rank)? else { return Ok(None) };
    match number(engine.world)? {
        Some(world) => Ok(Some(Found { engine, rank, world })),
        // Many a tool sets `RANK` alone; ours and those of engines that come in pairs are another matter.
        None if engine.rank == RANK_VARIABLE => Err(HostError::Job(format!(
            "{} is set and {} is not: how many processes are there?",
            engine.rank, engine.world
        ))),
        None => Ok(None),
    }
}

fn master(first: &Found, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, HostError> {
    if let Some(master) = variable(MASTER_VARIABLE) {
        return match master.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(master),
            _ => Err(HostError::Job(format!("{MASTER_VARIABLE} is `{master}`, and should be HOST:PORT"))),
        };
    }
    let [host, port] = first.engine.master.unwrap_or(["MASTER_ADDR", "MASTER_PORT"]);
    match (variable(host), variable(port)) {
        (Some(host), Some(port)) if port.parse::<u16>().is_ok() => Ok(format!("{host}:{port}")),
        (Some(_), Some(text)) => Err(HostError::Job(format!("{port} is `{text}`, and should be a port"))),
        _ => Err(HostError::Job(format!(
            "{first}, but nobody says where rank 0 is: set {MASTER_VARIABLE}=HOST:PORT, or {host} and {port}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Contract>, String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        Contract::of(&get).map_err(|e| e.to_string())
    }
    const TORCH: [(&str, &str); 4] =
        [("RANK", "2"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")];

    #[test]
    fn every_engine_is_understood() {
        assert_eq!(read(&[]), Ok(None));
        let contract = read(&TORCH).expect("whole").expect("four processes");
        assert_eq!((contract.by, contract.rank, contract.world), ("torchrun", 2, 4));
        assert_eq!(contract.master, "127.0.0.1:29500");
        for (rank, world, by) in [
            ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "Slurm"),
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "Open MPI"),
            ("JOB_COMPLETION_INDEX", "THALWEG_WORLD", "Kubernetes"),
            ("THALWEG_RANK", "THALWEG_WORLD", "Thalweg"),
        ] {
            let contract = read(&[(rank, "1"), (world, "3"), (MASTER_VARIABLE, "host7:4000")]);
            let contract = contract.expect("whole").expect("three processes");
            assert_eq!((contract.by, contract.rank, contract.world, &*contract.master), (by, 1, 3, "host7:4000"));
            let error = read(&[(rank, "1"), (world, "3")]).expect_err("no master");
            assert!(error.contains("nobody says where rank 0 is: set THALWEG_MASTER=HOST:PORT"), "{error}");
            assert_eq!(read(&[(rank, "0"), (world, "1")]), Ok(None), "alone");
            let error = read(&[(rank, "3"), (world, "3"), (MASTER_VARIABLE, "h:1")]).expect_err("no such rank");
            assert!(error.contains("ranks go from 0 to 2"), "{error}");
        }
        // A batch script, or some tool's own.
        assert_eq!(read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]), Ok(None));
        assert_eq!(read(&[("RANK", "7")]), Ok(None));
    }

    #[test]
    fn two_that_disagree_are_both_named() {
        let slurm = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "2")];
        let error = read(&[&TORCH[..], &slurm].concat()).expect_err("they disagree");
        assert!(error.contains("torchrun says rank 2 of 4 (RANK, WORLD_SIZE)"), "{error}");
        assert!(error.contains("Slurm says rank 0 of 2 (SLURM_PROCID, SLURM_STEP_NUM_TASKS)"), "{error}");
        let agree = [("SLURM_PROCID", "2"), ("SLURM_STEP_NUM_TASKS", "4")];
        assert!(read(&[&TORCH[..], &agree].concat()).expect("they agree").is_some());
        let ours = [("THALWEG_RANK", "1"), ("THALWEG_WORLD", "3"), (MASTER_VARIABLE, "h:1")];
        let ours = read(&[&ours[..], &TORCH, &slurm].concat()).expect("ours counts").expect("three");
        assert_eq!((ours.by, ours.rank), ("Thalweg", 1));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (variables, says) in [
            (&[("RANK", "x"), ("WORLD_SIZE", "4")][..], "RANK is `x`"),
            (&[("RANK", "0"), ("WORLD_SIZE", "-1")], "WORLD_SIZE is `-1`"),
            (&[("RANK", "0"), ("WORLD_SIZE", "70000")], "a number below 65536"),
            (&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "h")], "nobody says where rank 0 is"),
            (&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "h"), ("MASTER_PORT", "x")], "MASTER_PORT is `x`"),
            (&[("RANK", "0"), ("WORLD_SIZE", "2"), (MASTER_VARIABLE, "here")], "should be HOST:PORT"),
            (&[("THALWEG_RANK", "0")], "THALWEG_WORLD is not"),
        ] {
            let error = read(variables).expect_err("nonsense");
            assert!(error.contains(says), "{variables:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_variables_are_a_contract_or_an_error(values in proptest::collection::vec("[0-9a-z:.-]{0,6}", 13)) {
            let names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS",
                "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "JOB_COMPLETION_INDEX", "THALWEG_WORLD", "THALWEG_RANK",
                MASTER_VARIABLE, "SLURM_JOB_ID"];
            let variables: Vec<(&str, &str)> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
            if let Ok(Some(contract)) = read(&variables) {
                prop_assert!(contract.rank < contract.world && contract.master.contains(':'));
            }
        }
    }
}
