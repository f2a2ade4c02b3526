//! From words to what is to be done: blocks in blocks, and pipelines of commands.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::Value;

use crate::Error;
use crate::functions;
use crate::lex::{Kind, Piece, Token, syntax};

/// Blocks and parentheses in each other: a bound of the stack.
const DEPTH_MAX: usize = 50;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Text(String),
    Print(Pipeline),
    /// A variable that is new, or not.
    Set {
        name: String,
        is_new: bool,
        pipeline: Pipeline,
    },
    If {
        condition: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        name: Option<String>,
        value: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        key: Option<String>,
        value: Option<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// Commands, each of which gets what the one before it has given, as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline(pub(crate) Vec<Vec<Operand>>);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Operand {
    pub(crate) base: Base,
    /// The way from there.
    pub(crate) fields: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Base {
    Dot,
    Variable(String),
    Literal(Value),
    Function(String),
    Group(Pipeline),
}

pub(crate) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, Error> {
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        depth: 0,
        ranges: 0,
    };
    let (nodes, end) = parser.block()?;
    match end {
        End::OfText => Ok(nodes),
        End::Else(at, _) | End::OfBlock(at) => Err(syntax(at, "it ends what has not begun")),
    }
}

/// What ended a block.
enum End {
    OfText,
    OfBlock(usize),
    /// With the words behind it, as of `else if`.
    Else(usize, Words),
}

struct Parser {
    pieces: IntoIter<Piece>,
    depth: usize,
    /// Loops around this place.
    ranges: usize,
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, End), Error> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (at, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(at, tokens) => (at, tokens),
            };
            let mut words = Words::new(at, tokens);
            let keyword = match words.peek() {
                Some(Kind::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match keyword.as_str() {
                "end" => {
                    words.next();
                    words.finish()?;
                    return Ok((nodes, End::OfBlock(at)));
                }
                "else" => {
                    words.next();
                    return Ok((nodes, End::Else(at, words)));
                }
                "if" | "with" | "range" => {
                    words.next();
                    nodes.push(self.control(&keyword, at, words)?);
                }
                "break" | "continue" => {
                    words.next();
                    words.finish()?;
                    if self.ranges == 0 {
                        return Err(syntax(at, format!("{keyword} is outside of any range")));
                    }
                    nodes.push(if keyword == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "define" | "template" | "block" => {
                    return Err(syntax(at, format!("{keyword} is not supported")));
                }
                _ => nodes.push(words.statement()?),
            }
        }
        Ok((nodes, End::OfText))
    }

    fn control(&mut self, keyword: &str, at: usize, mut words: Words) -> Result<Node, Error> {
        if self.depth == DEPTH_MAX {
            return Err(syntax(
                at,
                format!("more than {DEPTH_MAX} blocks are in each other"),
            ));
        }
        self.depth += 1;
        let (mut names, value) = words.declaration()?;
        let most = match keyword {
            "range" => 2,
            "with" => 1,
            _ => 0,
        };
        if names.len() > most {
            return Err(syntax(at, format!("{keyword} takes no such variables")));
        }
        self.ranges += usize::from(keyword == "range");
        let (body, end) = self.block()?;
        self.ranges -= usize::from(keyword == "range");
        let otherwise = self.otherwise(keyword, at, end)?;
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If {
                condition: value,
                body,
                otherwise,
            },
            "with" => Node::With {
                name: names.pop(),
                value,
                body,
                otherwise,
            },
            _ => Node::Range {
                value: names.pop(),
                key: names.pop(),
                over: value,
                body,
                otherwise,
            },
        })
    }

    fn otherwise(&mut self, keyword: &str, at: usize, end: End) -> Result<Vec<Node>, Error> {
        let (else_at, mut words) = match end {
            End::OfBlock(_) => return Ok(Vec::new()),
            End::OfText => {
                return Err(syntax(
                    at,
                    format!("{keyword} has no end: {{{{end}}}} is missing"),
                ));
            }
            End::Else(at, words) => (at, words),
        };
        if let Some(Kind::Word(next)) = words.peek()
            && (next == "if" || next == "with")
            && next == keyword
        {
            words.next();
            // Its end is that of the whole.
            return Ok(vec![self.control(keyword, else_at, words)?]);
        }
        words.finish()?;
        match self.block()? {
            (nodes, End::OfBlock(_)) => Ok(nodes),
            (_, End::Else(at, _)) => Err(syntax(at, "there is one else already")),
            (_, End::OfText) => Err(syntax(
                at,
                format!("{keyword} has no end: {{{{end}}}} is missing"),
            )),
        }
    }
}

/// The words of one action.
struct Words {
    /// Of the action.
    at: usize,
    tokens: Peekable<IntoIter<Token>>,
    depth: usize,
}

impl Words {
    fn new(at: usize, tokens: Vec<Token>) -> Words {
        Words {
            at,
            tokens: tokens.into_iter().peekable(),
            depth: 0,
        }
    }

    fn peek(&mut self) -> Option<&Kind> {
        self.tokens.peek().map(|token| &token.kind)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.next();
        if let Some(token) = &token {
            self.at = token.at;
        }
        token
    }

    fn finish(&mut self) -> Result<(), Error> {
        match self.next() {
            None => Ok(()),
            Some(token) => Err(syntax(token.at, "nothing more is expected here")),
        }
    }

    /// What is printed, or set.
    fn statement(mut self) -> Result<Node, Error> {
        if let Some(Kind::Variable(name)) = self.peek() {
            let name = name.clone();
            let mut ahead = self.tokens.clone();
            ahead.next();
            let sets = ahead.next().map(|token| token.kind);
            if let Some(kind @ (Kind::Declare | Kind::Assign)) = sets {
                self.next();
                self.next();
                let pipeline = self.whole_pipeline()?;
                let is_new = kind == Kind::Declare;
                return Ok(Node::Set {
                    name,
                    is_new,
                    pipeline,
                });
            }
        }
        self.whole_pipeline().map(Node::Print)
    }

    /// `$a := pipeline`, `$a, $b := pipeline`, or `pipeline`.
    fn declaration(&mut self) -> Result<(Vec<String>, Pipeline), Error> {
        let mut ahead = self.tokens.clone();
        let mut names = Vec::new();
        while let Some(Kind::Variable(name)) = ahead.next().map(|token| token.kind) {
            names.push(name);
            match ahead.next().map(|token| token.kind) {
                Some(Kind::Comma) => {}
                Some(Kind::Declare) => {
                    self.tokens = ahead;
                    return Ok((names, self.whole_pipeline()?));
                }
                _ => break,
            }
        }
        Ok((Vec::new(), self.whole_pipeline()?))
    }

    fn whole_pipeline(&mut self) -> Result<Pipeline, Error> {
        let pipeline = self.pipeline()?;
        self.finish()?;
        Ok(pipeline)
    }

    fn pipeline(&mut self) -> Result<Pipeline, Error> {
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Kind::Pipe) {
            self.next();
            commands.push(self.command()?);
            if let [.., last] = commands.as_slice()
                && !matches!(last[0].base, Base::Function(_))
            {
                return Err(syntax(self.at, "what follows a | has to be a function"));
            }
        }
        Ok(Pipeline(commands))
    }

    fn command(&mut self) -> Result<Vec<Operand>, Error> {
        let mut operands = Vec::new();
        while !matches!(self.peek(), None | Some(Kind::Pipe | Kind::Close)) {
            let is_first = operands.is_empty();
            operands.push(self.operand(is_first)?);
        }
        match operands.as_slice() {
            [] => Err(syntax(self.at, "something to print is missing")),
            [first, _, ..] if !matches!(first.base, Base::Function(_)) && first.fields.is_empty() => {
                Err(syntax(self.at, "only functions take arguments"))
            }
            _ => Ok(operands),
        }
    }

    fn operand(&mut self, is_first: bool) -> Result<Operand, Error> {
        let Some(token) = self.next() else {
            return Err(syntax(self.at, "something is missing"));
        };
        let mut fields = Vec::new();
        let base = match token.kind {
            Kind::Dot => Base::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Kind::Variable(name) => Base::Variable(name),
            Kind::Text(text) => Base::Literal(Value::String(text)),
            Kind::Integer(number) => Base::Literal(number.into()),
            Kind::Float(number) => Base::Literal(number.into()),
            Kind::Word(word) => match word.as_str() {
                "true" => Base::Literal(true.into()),
                "false" => Base::Literal(false.into()),
                "nil" => Base::Literal(Value::Null),
                name if !functions::is_known(name) => {
                    let known = functions::NAMES.join(", ");
                    return Err(syntax(
                        token.at,
                        format!("there is no function {name:?}: there are {known}"),
                    ));
                }
                // One without arguments is none of ours.
                _ if !is_first => {
                    return Err(syntax(
                        token.at,
                        "put the function and its arguments in parentheses",
                    ));
                }
                _ => {
                    return Ok(Operand {
                        base: Base::Function(word),
                        fields,
                    });
                }
            },
            Kind::Open => {
                if self.depth == DEPTH_MAX {
                    return Err(syntax(
                        token.at,
                        format!("more than {DEPTH_MAX} parentheses are in each other"),
                    ));
                }
                self.depth += 1;
                let pipeline = self.pipeline()?;
                self.depth -= 1;
                match self.next().map(|token| token.kind) {
                    Some(Kind::Close) => Base::Group(pipeline),
                    _ => return Err(syntax(token.at, "the parenthesis is not closed")),
                }
            }
            Kind::Pipe | Kind::Close | Kind::Assign | Kind::Declare | Kind::Comma => {
                return Err(syntax(token.at, "this is in the wrong place"));
            }
        };
        while let Some(next) = self
            .tokens
            .next_if(|token| token.glued && matches!(token.kind, Kind::Field(_)))
        {
            if let Kind::Field(name) = next.kind {
                fields.push(name);
            }
        }
        Ok(Operand { base, fields })
    }
}
