//! Sequences of operations that a seed decides, held to a model of what docker answers. dockerd itself is held to the
//! same model, so that the model is not merely what its author believes.

use integration::{Docker, Done, Manager, Random, Sandbox, eventually};
use std::collections::BTreeMap;

/// `BERTH_SEED` in the environment repeats another run's decisions.
const SEED: u64 = 0x006d_6f64_656c;
const NAMES: [&str; 3] = ["one", "two", "three"];

/// How many operations a run makes: `BERTH_MODEL`, or the usual number.
fn operations(usual: u32) -> u32 {
    std::env::var("BERTH_MODEL").map_or(usual, |text| text.parse().expect("BERTH_MODEL is a number"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Created,
    Running,
    Paused,
    Exited(i32),
}

/// What a container's process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Says so and stays; takes no signal but SIGKILL.
    Long,
    /// Says so and ends with this code.
    Short(i32),
}

impl Kind {
    fn script(self) -> String {
        match self {
            Kind::Long => "echo begun; exec sleep 100000".to_owned(),
            Kind::Short(code) => format!("echo begun; exit {code}"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Container {
    kind: Kind,
    state: State,
    starts: usize,
}

/// What an operation is answered with.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    /// With the code of what ran.
    Code(i32),
    /// Refused, with these words somewhere in the reason.
    Refused(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Create(Kind),
    Run(Kind),
    Start,
    Stop,
    Kill,
    Signal,
    Restart,
    Pause,
    Unpause,
    Exec,
    Wait,
    Rename(&'static str),
    Remove,
    RemoveByForce,
}

const MISSING: Answer = Answer::Refused("o such container");

/// The containers as docker's user would expect them, by name.
#[derive(Debug, Default)]
struct Model(BTreeMap<&'static str, Container>);

impl Model {
    fn apply(&mut self, name: &'static str, operation: Operation) -> Answer {
        match operation {
            Operation::Create(kind) | Operation::Run(kind) => {
                if self.0.contains_key(name) {
                    return Answer::Refused("in use");
                }
                let mut made = Container {
                    kind,
                    state: State::Created,
                    starts: 0,
                };
                if matches!(operation, Operation::Run(_)) {
                    made.start();
                }
                self.0.insert(name, made);
                Answer::Done
            }
            // As of docker 23: what is not there is as wished.
            Operation::RemoveByForce => {
                self.0.remove(name);
                Answer::Done
            }
            Operation::Remove => match self.0.get(name).map(|found| found.state) {
                None => MISSING,
                Some(State::Running) => Answer::Refused("running"),
                Some(State::Paused) => Answer::Refused("paused"),
                Some(State::Created | State::Exited(_)) => {
                    self.0.remove(name);
                    Answer::Done
                }
            },
            Operation::Rename(to) => {
                let Some(found) = self.0.get(name).copied() else {
                    return MISSING;
                };
                if to == name {
                    return Answer::Refused("name");
                }
                if self.0.contains_key(to) {
                    return Answer::Refused("in use");
                }
                self.0.remove(name);
                self.0.insert(to, found);
                Answer::Done
            }
            other => self.0.get_mut(name).map_or(MISSING, |found| found.apply(other)),
        }
    }
}

impl Container {
    fn start(&mut self) {
        self.starts += 1;
        self.state = match self.kind {
            Kind::Long => State::Running,
            Kind::Short(code) => State::Exited(code),
        };
    }

    fn apply(&mut self, operation: Operation) -> Answer {
        use State::{Created, Exited, Paused, Running};
        match (operation, self.state) {
            (Operation::Start | Operation::Signal, Running) | (Operation::Stop, Created | Exited(_)) => {
                return Answer::Done;
            }
            (Operation::Start | Operation::Exec, Paused) => return Answer::Refused("paused"),
            (Operation::Start, Created | Exited(_)) | (Operation::Restart, _) => self.start(),
            (Operation::Stop | Operation::Kill, Running | Paused) => self.state = Exited(137),
            (Operation::Pause, Running) => self.state = Paused,
            (Operation::Pause, Paused) => return Answer::Refused("already"),
            (Operation::Unpause, Paused) => self.state = Running,
            (Operation::Exec, Running) => return Answer::Code(3),
            // `wait` of what was never started is answered at once.
            (Operation::Wait, Created) => return Answer::Code(0),
            (Operation::Wait, Exited(code)) => return Answer::Code(code),
            (Operation::Unpause, _) => return Answer::Refused("is not"),
            (
                Operation::Kill | Operation::Signal | Operation::Pause | Operation::Exec,
                Created | Exited(_),
            ) => {
                return Answer::Refused("not running");
            }
            (other, state) => panic!("{other:?} is not to be asked of {state:?}"),
        }
        Answer::Done
    }
}

/// An engine with docker's command line and an image `box`.
trait Engine {
    fn call(&self, args: &[&str]) -> Done;
    /// kill -9, and a new one.
    fn crash(&mut self);
}

impl Engine for Docker {
    fn call(&self, args: &[&str]) -> Done {
        Docker::call(self, args)
    }

    fn crash(&mut self) {
        self.kill();
        self.start_again();
    }
}

impl Engine for Manager {
    fn call(&self, args: &[&str]) -> Done {
        self.ctl(args)
    }

    fn crash(&mut self) {
        self.kill();
        self.start_again();
    }
}

fn perform(engine: &dyn Engine, image: &str, name: &str, operation: Operation) -> Done {
    let make = |verb: &[&str], kind: Kind| {
        let rest = [
            "--network",
            "none",
            "--name",
            name,
            image,
            "sh",
            "-c",
            &kind.script(),
        ];
        engine.call(&[verb, &rest].concat())
    };
    match operation {
        Operation::Create(kind) => make(&["create"], kind),
        Operation::Run(kind) => make(&["run", "-d"], kind),
        Operation::Start => engine.call(&["start", name]),
        Operation::Stop => engine.call(&["stop", "-t", "0", name]),
        Operation::Kill => engine.call(&["kill", name]),
        Operation::Signal => engine.call(&["kill", "-s", "USR1", name]),
        Operation::Restart => engine.call(&["restart", "-t", "0", name]),
        Operation::Pause => engine.call(&["pause", name]),
        Operation::Unpause => engine.call(&["unpause", name]),
        Operation::Exec => engine.call(&["exec", name, "sh", "-c", "exit 3"]),
        Operation::Wait => engine.call(&["wait", name]),
        Operation::Rename(to) => engine.call(&["rename", name, to]),
        Operation::Remove => engine.call(&["rm", name]),
        Operation::RemoveByForce => engine.call(&["rm", "-f", name]),
    }
}

fn next(random: &mut Random, state: Option<State>) -> Operation {
    let kind = match random.below(3) {
        0 => Kind::Short(random.below(4) as i32),
        _ => Kind::Long,
    };
    // Most of what is asked makes sense; the rest is for the refusals.
    if state.is_none() && random.below(4) > 0 {
        return match random.below(2) {
            0 => Operation::Create(kind),
            _ => Operation::Run(kind),
        };
    }
    match random.below(15) {
        0 => Operation::Create(kind),
        1 => Operation::Run(kind),
        2 | 3 => Operation::Start,
        4 => Operation::Stop,
        5 => Operation::Kill,
        // A signal waits for a paused container, and ends nothing here.
        6 if state != Some(State::Paused) => Operation::Signal,
        7 => Operation::Restart,
        8 => Operation::Pause,
        9 => Operation::Unpause,
        10 => Operation::Exec,
        // It would wait for the end of the others.
        11 if !matches!(state, Some(State::Running | State::Paused)) => Operation::Wait,
        12 => Operation::Rename(NAMES[random.below(3) as usize]),
        13 => Operation::Remove,
        _ => Operation::RemoveByForce,
    }
}

fn assert_answer(expected: &Answer, operation: Operation, done: &Done) {
    match (expected, operation) {
        (Answer::Done, _) => assert_eq!(done.code, 0, "{operation:?}: {done}"),
        (Answer::Code(code), Operation::Wait) => {
            assert_eq!((done.code, done.stdout.trim()), (0, &*code.to_string()), "{done}");
        }
        (Answer::Code(code), _) => assert_eq!(done.code, *code, "{operation:?}: {done}"),
        (Answer::Refused(words), _) => {
            assert_ne!(done.code, 0, "{operation:?} was to be refused: {done}");
            assert!(done.stderr.contains(words), "{operation:?} ({words}): {done}");
        }
    }
}

/// What `ps -a` shows of each container, as the model has it.
fn assert_listed(model: &Model, engine: &dyn Engine) {
    let shown = |done: &Done| -> BTreeMap<String, String> {
        let lines = done.stdout.lines().skip(1);
        let row = |line: &str| {
            let columns: Vec<&str> = line
                .split("  ")
                .map(str::trim)
                .filter(|column| !column.is_empty())
                .collect();
            let status = columns.iter().find(|column| {
                ["Created", "Up ", "Exited"]
                    .iter()
                    .any(|word| column.starts_with(word))
            });
            let status = status.unwrap_or_else(|| panic!("a status in {line}"));
            (columns[columns.len() - 1].to_owned(), (*status).to_owned())
        };
        lines.map(row).collect()
    };
    let as_expected = |status: &str, state: State| match state {
        State::Created => status == "Created",
        State::Running => status.starts_with("Up ") && !status.contains("Paused"),
        State::Paused => status.starts_with("Up ") && status.contains("(Paused)"),
        State::Exited(code) => status.starts_with(&format!("Exited ({code}) ")),
    };
    // A short one ends by itself, a moment after its start was acknowledged.
    let mut last = BTreeMap::new();
    let found = comes_about(&mut || {
        last = shown(&engine.call(&["ps", "-a"]));
        let is_all = last.len() == model.0.len();
        (is_all
            && model.0.iter().all(|(name, container)| {
                last.get(*name)
                    .is_some_and(|status| as_expected(status, container.state))
            }))
        .then_some(())
    });
    assert!(found, "expected {model:?}, and ps shows {last:?}");
}

/// Whether it comes about within some seconds.
fn comes_about(condition: &mut dyn FnMut() -> Option<()>) -> bool {
    (0..200).any(|_| {
        let found = condition().is_some();
        if !found {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        found
    })
}

fn hold_to_the_model(engine: &mut dyn Engine, image: &str, count: u32) {
    let mut random = Random::seeded(SEED);
    let mut model = Model::default();
    for number in 0..count {
        let name = NAMES[random.below(3) as usize];
        let state = model.0.get(name).map(|found| found.state);
        let operation = next(&mut random, state);
        println!("{number}: {operation:?} of {name}, which is {state:?}");
        let expected = model.apply(name, operation);
        let done = perform(engine, image, name, operation);
        assert_answer(&expected, operation, &done);
        assert_listed(&model, engine);
        if random.below(20) == 0 {
            println!("{number}: a crash");
            engine.crash();
            assert_listed(&model, engine);
        }
    }
    for (name, container) in &model.0 {
        eventually("all that was said is in the log", || {
            let log = engine.call(&["logs", name]).stdout;
            (log == "begun\n".repeat(container.starts)).then_some(())
        });
        engine.call(&["rm", "-f", name]).ok();
    }
}

#[test]
fn berth_answers_as_the_model_does() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    hold_to_the_model(&mut manager, &image, operations(150));
}

#[test]
fn docker_answers_as_the_model_does() {
    let sandbox = Sandbox::new();
    let Some(mut docker) = Docker::start_with_runc(&sandbox) else {
        return;
    };
    hold_to_the_model(&mut docker, "box", operations(60));
}
