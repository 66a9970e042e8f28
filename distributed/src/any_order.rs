//! The machines in any order of events, also in orders that no rim makes: none of them panics, and what they promise about
//! each single step holds.

use proptest::prelude::*;
use std::time::Duration;

use crate::auth::Party;
use crate::message::{Cause, Order, Report};
use crate::{coordinator, joining, machine, membership};

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        Just(Cause::Aborted),
        Just(Cause::Unreachable("a wire".into())),
        Just(Cause::Damage("a bit".into())),
        Just(Cause::Fault("a launch".into())),
        Just(Cause::Gone("a process".into())),
    ]
}
fn report() -> impl Strategy<Value = Report> {
    let step = || 0..4u64;
    prop_oneof![
        Just(Report::Ready),
        Just(Report::Alive { doing: String::new() }),
        Just(Report::Answer(Ok(1))),
        step().prop_map(|step| Report::Voted { step }),
        (step(), any::<bool>()).prop_map(|(step, committed)| Report::Done {
            step,
            committed,
            carried: vec![(9, 1, 1, 1)]
        }),
        (step(), cause(), any::<bool>()).prop_map(|(step, cause, in_tail)| Report::Failed { step, cause, in_tail }),
    ]
}
fn order() -> impl Strategy<Value = Order> {
    let (device, workers) = ("cpu".to_string(), vec!["127.0.0.1:1".parse().expect("an address"); 3]);
    let welcome = move |rank| Order::Welcome {
        term: 1,
        rank,
        workers: workers.clone(),
        device: device.clone(),
        threads: 1,
        null: false,
    };
    prop_oneof![
        // Also ranks that there are not.
        (0..5u16).prop_map(welcome),
        Just(Order::Refuse("no".into())),
        Just(Order::Load([0; 32])),
        (0..4u64).prop_map(|step| Order::Run { step, loaded: 0, draws: [].into() }),
        (0..4u64, any::<bool>()).prop_map(|(step, commit)| Order::Decide { step, commit }),
        (0..4u64).prop_map(|step| Order::Abort { step }),
        Just(Order::Leave),
    ]
}
fn party() -> impl Strategy<Value = Party> {
    prop_oneof![Just(Party::Driver), Just(Party::Joining), (0..5u16).prop_map(Party::Worker)]
}

proptest! {
    /// A step ends once, and is decided once, after it was asked.
    #[test]
    fn a_coordinator(events in proptest::collection::vec(prop_oneof![
        4 => (0..3u16, report()).prop_map(|(rank, report)| coordinator::Event::From { rank, report }),
        1 => (0..3u16).prop_map(|rank| coordinator::Event::Gone { rank, why: "killed".into() }),
        1 => any::<bool>().prop_map(|commit| coordinator::Event::Decided { commit }),
        1 => cause().prop_map(coordinator::Event::Fault),
        1 => Just(coordinator::Event::Expired),
    ], 0..60)) {
        let mut coordinator = coordinator::Coordinator::new(3);
        let (mut step, mut runs, mut asked, mut decided) = (0, false, false, false);
        for event in events {
            if !runs {
                step = (step + 1) % 4;
                (asked, decided) = (false, false);
                let start = coordinator::Event::Start { step, loaded: vec![], draws: vec![] };
                runs = !coordinator.handle(start).iter().any(|c| matches!(c, coordinator::Command::Finish(_)));
            }
            let mut finished = 0;
            let mut decides = false;
            for command in coordinator.handle(event) {
                match command {
                    coordinator::Command::Ask => asked = true,
                    coordinator::Command::Send { order: Order::Decide { step: of, .. }, .. } => {
                        prop_assert!(asked && !decided && of == step);
                        decides = true;
                    }
                    coordinator::Command::Finish(_) => finished += 1,
                    _ => {}
                }
            }
            decided |= decides;
            prop_assert!(finished <= usize::from(runs));
            runs &= finished == 0;
        }
    }

    /// Who commits has voted before and was told to.
    #[test]
    fn a_machine(events in proptest::collection::vec(prop_oneof![
        5 => order().prop_map(|order| machine::Event::Order(order, vec![])),
        2 => Just(machine::Event::BodyEnded),
        1 => Just(machine::Event::Done(Ok(0), vec![])),
        1 => report().prop_map(machine::Event::Ended),
        1 => cause().prop_map(machine::Event::Broken),
        1 => Just(machine::Event::DriverGone("gone".into())),
    ], 0..60)) {
        let mut machine = machine::Machine::new();
        let mut voted = None;
        for event in events {
            let told = if let machine::Event::Order(Order::Decide { step, commit: true }, _) = &event { Some(*step) } else { None };
            for command in machine.handle(event) {
                match command {
                    machine::Command::Report(Report::Voted { step }, _) => voted = Some(step),
                    machine::Command::Decide { commit: true } => {
                        prop_assert!(told.is_some() && told == voted);
                        voted = None;
                    }
                    machine::Command::Run { .. } => voted = None,
                    _ => {}
                }
            }
        }
    }

    /// Nobody is welcomed to a term that was not begun, and nobody twice.
    #[test]
    fn a_membership(events in proptest::collection::vec((0..9_000u64, prop_oneof![
        1 => (0..3usize).prop_map(|least| membership::Event::Call { least, patience: Duration::from_secs(60), before: vec![1, 2] }),
        4 => (0..3u32, proptest::option::of(0..5u16)).prop_map(|(process, rank)| membership::Event::Joined { number: 0, process, rank }),
        1 => (0..40u64).prop_map(|number| membership::Event::Left { number }),
        1 => Just(membership::Event::Refused("no".into())),
        6 => (0..4usize, 0..9u8).prop_map(|(expected, g)| membership::Event::Tick { expected, given_up: g == 0 }),
        3 => (0..4u16).prop_map(|rank| membership::Event::Ready { rank }),
        1 => Just(membership::Event::Failed("gone".into())),
    ]), 0..80)) {
        let (mut membership, mut now, mut terms, mut numbers) = (membership::Membership::new(), 0, 0, 0);
        let mut welcomed = std::collections::BTreeSet::new();
        for (after, mut event) in events {
            now += after;
            let time = Duration::from_millis(now);
            if let membership::Event::Joined { number, .. } = &mut event {
                numbers += 1;
                *number = numbers;
            }
            let mut commands = membership.handle(time, event);
            if matches!(commands[..], [membership::Command::Begin]) {
                terms += 1;
                commands = membership.handle(time, membership::Event::Began { term: terms });
                let welcomes = matches!(&commands[..], [membership::Command::Welcome { term, .. }] if *term == terms);
                prop_assert!(welcomes);
            }
            for command in commands {
                prop_assert!(!matches!(command, membership::Command::Begin));
                if let membership::Command::Welcome { seats, .. } = command {
                    prop_assert!(!seats.is_empty());
                    prop_assert!(seats.into_iter().all(|seat| welcomed.insert(seat)));
                }
            }
        }
    }

    /// It takes part only once it has met everybody, and says nothing after it has finished.
    #[test]
    fn a_joining(events in proptest::collection::vec((0..9_000u64, prop_oneof![
        3 => Just(joining::Event::Tick),
        2 => Just(joining::Event::Joined),
        3 => order().prop_map(joining::Event::Said),
        3 => Just(joining::Event::Opened),
        6 => party().prop_map(joining::Event::Met),
        1 => Just(joining::Event::Refused("no".into())),
        1 => Just(joining::Event::Ended(machine::Exit::Left)),
        2 => Just(joining::Event::Ended(machine::Exit::Lost("gone".into()))),
        1 => Just(joining::Event::Ended(machine::Exit::Refused("no".into()))),
    ]), 0..80)) {
        let mut joining = joining::Joining::new(Duration::from_secs(30), true, Duration::ZERO);
        let (mut now, mut met, mut over) = (0, 0, false);
        for (after, event) in events {
            now += after;
            met += usize::from(matches!(event, joining::Event::Met(_)));
            for command in joining.handle(Duration::from_millis(now), event) {
                prop_assert!(!over, "{command:?}");
                match command {
                    joining::Command::Meet { .. } => met = 0,
                    joining::Command::TurnAway => met = met.saturating_sub(1),
                    joining::Command::TakePart => prop_assert!(met >= 3),
                    joining::Command::Finish(_) => over = true,
                    _ => {}
                }
            }
        }
    }
}
