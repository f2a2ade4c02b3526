//! A template carried out over a value. What it may do is bounded: loops in loops make much of little.

use serde_json::{Map, Value};

use crate::Error;
use crate::functions;
use crate::parse::{Base, Node, Operand, Pipeline};
use crate::show;

/// Nodes and commands that are carried out.
const STEPS_MAX: usize = 5_000_000;
const OUTPUT_BYTES_MAX: usize = 256 << 20;

/// Of one value.
const TEXT_BYTES_MAX: usize = 16 << 20;

fn too_much() -> Error {
    failed("it does too much")
}

pub(crate) fn failed(what: impl Into<String>) -> Error {
    Error::Render(what.into())
}

pub(crate) fn render(nodes: &[Node], value: &Value) -> Result<String, Error> {
    let mut run = Run {
        root: value,
        // `$` is the value itself.
        variables: vec![(String::new(), value.clone())],
        output: String::new(),
        steps: 0,
    };
    run.nodes(nodes, value)?;
    Ok(run.output)
}

/// How a block ended.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    output: String,
    steps: usize,
}

impl Run<'_> {
    fn step(&mut self) -> Result<(), Error> {
        self.steps += 1;
        if self.steps > STEPS_MAX || self.output.len() > OUTPUT_BYTES_MAX {
            return Err(too_much());
        }
        Ok(())
    }

    /// Variables of a block end with it.
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Error> {
        let known = self.variables.len();
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                self.variables.truncate(known);
                return Ok(flow);
            }
        }
        self.variables.truncate(known);
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, Error> {
        self.step()?;
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                show::value(&value, &mut self.output);
            }
            Node::Set {
                name,
                is_new,
                pipeline,
            } => {
                let value = self.pipeline(pipeline, dot)?;
                self.set(name, *is_new, value)?;
            }
            Node::If {
                condition,
                body,
                otherwise,
            } => {
                let holds = show::is_true(&self.pipeline(condition, dot)?);
                return self.nodes(if holds { body } else { otherwise }, dot);
            }
            Node::With {
                name,
                value,
                body,
                otherwise,
            } => {
                let value = self.pipeline(value, dot)?;
                if !show::is_true(&value) {
                    return self.nodes(otherwise, dot);
                }
                let known = self.variables.len();
                if let Some(name) = name {
                    self.variables.push((name.clone(), value.clone()));
                }
                let flow = self.nodes(body, &value)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Range {
                key,
                value,
                over,
                body,
                otherwise,
            } => {
                let over = self.pipeline(over, dot)?;
                return self.range(key.as_ref(), value.as_ref(), &over, body, otherwise, dot);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        key: Option<&String>,
        value: Option<&String>,
        over: &Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, Error> {
        let items: Vec<(Value, &Value)> = match over {
            Value::Null => Vec::new(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| (at.into(), item))
                .collect(),
            Value::Object(map) => {
                let mut items: Vec<_> = map.iter().map(|(key, item)| (key.clone(), item)).collect();
                items.sort_by(|(one, _), (other, _)| one.cmp(other));
                items
                    .into_iter()
                    .map(|(key, item)| (Value::String(key), item))
                    .collect()
            }
            other => {
                return Err(failed(format!(
                    "range goes over lists and maps, not over {other}"
                )));
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let known = self.variables.len();
        for (at, item) in items {
            self.step()?;
            if let Some(name) = key {
                self.variables.push((name.clone(), at));
            }
            if let Some(name) = value {
                self.variables.push((name.clone(), item.clone()));
            }
            let flow = self.nodes(body, item)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, is_new: bool, value: Value) -> Result<(), Error> {
        if is_new {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        known.ok_or_else(|| no_variable(name))?.1 = value;
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let mut last = None;
        for command in &pipeline.0 {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or_default())
    }

    fn command(&mut self, command: &[Operand], last: Option<Value>, dot: &Value) -> Result<Value, Error> {
        self.step()?;
        let Some((first, rest)) = command.split_first() else {
            return Ok(Value::Null);
        };
        if let Base::Function(name) = &first.base {
            return self.function(name, rest, last, dot);
        }
        let mut value = self.operand(first, dot)?;
        // Docker's `.Label "key"`.
        for argument in rest {
            let key = self.operand(argument, dot)?;
            value = match (&value, key) {
                (Value::Object(map), Value::String(key)) => {
                    map.get(&key).cloned().unwrap_or_else(|| "".into())
                }
                _ => return Err(failed("only functions and maps take arguments")),
            };
        }
        Ok(value)
    }

    fn function(
        &mut self,
        name: &str,
        operands: &[Operand],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value, Error> {
        let decides = |value: &Value| match name {
            "and" => !show::is_true(value),
            "or" => show::is_true(value),
            _ => false,
        };
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            let value = self.operand(operand, dot)?;
            // As in Go, what follows is not looked at.
            if decides(&value) {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(last);
        let made = functions::call(name, &arguments)?;
        match &made {
            Value::String(text) if text.len() > TEXT_BYTES_MAX => Err(too_much()),
            _ => Ok(made),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Error> {
        let fields = operand.fields.as_slice();
        match &operand.base {
            Base::Dot => self.along(dot, fields),
            Base::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let value = &known.ok_or_else(|| no_variable(name))?.1;
                self.along(value, fields)
            }
            Base::Literal(value) => self.along(value, fields),
            Base::Function(name) => Err(failed(format!("{name} is a function, and needs arguments"))),
            Base::Group(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.along(&value, fields)
            }
        }
    }

    fn along(&self, value: &Value, fields: &[String]) -> Result<Value, Error> {
        let mut here = value;
        for name in fields {
            here = match here {
                Value::Object(map) => match find(map, name) {
                    Some(found) => found,
                    None if here == self.root => return Err(no_field(map, name)),
                    None => return Ok(Value::Null),
                },
                Value::Null => return Ok(Value::Null),
                other => return Err(failed(format!("there is no {name} in {other}"))),
            };
        }
        Ok(here.clone())
    }
}

/// By its name, or in other case.
pub(crate) fn find<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).or_else(|| {
        let mut all = map.iter();
        all.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    })
}

fn no_field(map: &Map<String, Value>, name: &str) -> Error {
    let all: Vec<_> = map.keys().map(String::as_str).collect();
    failed(format!("there is no field {name}: there are {}", all.join(", ")))
}

fn no_variable(name: &str) -> Error {
    failed(format!("there is no variable ${name}"))
}
